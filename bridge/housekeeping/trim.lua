#!lua flags=allow-oom
-- Removes old entries that every group has acknowledged, one step of them. Anyone may call it at any time.
-- KEYS     stream, what the names of the retries begin with: `<group>:<stream>` follows, ages (see `aged`)
-- ARGV     retention (ms), entries to remove at most, then the groups that will read this stream, joined or not yet
-- returns  {removed, 1 if there may be more, now (ms), the id before which entries are old enough, '' or the error of a command that trimming can do
--          without, group, …}, a group as {name, pending, lag or -1, its oldest pending entry or '', ms at which its retry is due or -1, its oldest
--          unread entry or ''}
-- A stream that no group reads loses nothing; all of it is unread by a group named ''.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local limited = ''

local function try(...)  -- what trimming can do without; a key of a wrong type, written by hand, is as good as none
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    limited = string.find(tostring(answer.err), 'WRONGTYPE', 1, true) and limited or answer.err
    return false
  end
  return answer
end

local function older(one, other)  -- of two entry ids or ''; as numbers ids would lose their last digits
  if one == '' or other == '' then
    return one .. other
  end
  local a, b = string.match(one, '%d+'), string.match(other, '%d+')
  if a == b then
    a, b = string.match(one, '%d+$'), string.match(other, '%d+$')
  end
  return (#a < #b or #a == #b and a < b) and one or other
end

-- The id before which entries have been here for the retention. Ids that Redis gave while its clock was ahead do not tell
-- how old an entry is: then what is in the stream now is old enough when the retention has gone. What that will be, and
-- what it is meanwhile, is kept in the hash of ages: stream -> "since ms|will be|is".
local function aged()
  local retention = tonumber(ARGV[1])
  local bound = string.format('%.0f-0', math.max(0, now - retention))
  local ahead = redis.call('XRANGE', KEYS[1], string.format('%.0f-0', now + 60001), '+', 'COUNT', 1)[1]
  local last = ahead and (try('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1) or {})[1]
  if not last then
    try('HDEL', KEYS[3], KEYS[1])
    return bound
  end
  local ms, seq = string.match(last[1], '(%d+)-(%d+)')
  local all = ms .. '-' .. string.format('%.0f', seq + 1)
  if retention == 0 then
    return all
  end
  local noted = try('HGET', KEYS[3], KEYS[1])
  local since, will, is = string.match(type(noted) == 'string' and noted or '', '^(%d+)|(.*)|(.*)$')
  since = tonumber(since)
  if not since then
    since, will, is = now, all, '0-0'
  elseif since > now then
    since = now
  elseif now - since >= retention then
    since, will, is = now, all, will
  end
  try('HSET', KEYS[3], KEYS[1], string.format('%.0f|%s|%s', since, will, is))
  return older(bound, is) == bound and is or bound
end

local function standing(group)
  local pending = redis.call('XPENDING', KEYS[1], group['name'], '-', '+', 1)[1]
  -- An error when nothing can follow, the last id being the greatest there is.
  local unread = redis.pcall('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  local due = pending and try('ZSCORE', KEYS[2] .. group['name'] .. ':' .. KEYS[1], pending[1])
  due = type(due) == 'string' and tonumber(due) or -1
  return {group['name'], group['pending'], group['lag'] or -1, pending and pending[1] or '', due,
          unread and unread[1] or ''}
end

local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  return string.find(tostring(groups.err), 'no such key', 1, true) and {0, 0, now, '0-0', ''} or groups
end

local bound = aged()
local answer, joined = {0, 0, now, bound, ''}, {}
for _, fields in ipairs(groups) do
  local group = {}
  for i = 1, #fields, 2 do
    group[fields[i]] = fields[i + 1]
  end
  local row = standing(group)
  bound = older(bound, older(row[4], row[6]))
  answer[#answer + 1] = row
  joined[group['name']] = true
end

-- A worker joins a stream a moment after its first entry, or when it is back; until then all of it is unread.
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local absent = {unpack(ARGV, 3)}
if #groups == 0 and #absent == 0 then
  absent = {''}
end
for _, name in ipairs(absent) do
  if first and not joined[name] then
    bound = older(bound, first[1])
    answer[#answer + 1] = {name, 0, redis.call('XLEN', KEYS[1]), '', -1, first[1]}
  end
end

-- Whole nodes as far as the limit allows, for that is cheap; when there is none left, what is due of the next node.
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', bound, 'LIMIT', ARGV[2])
answer[2] = removed > 0 and 1 or 0
if removed == 0 then
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', bound)
end
answer[1], answer[5] = removed, limited
return answer
