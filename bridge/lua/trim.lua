#!lua flags=allow-oom
-- Removes old entries that every group has acknowledged, one step of them. Anyone may call it at any time.
-- KEYS     stream
-- ARGV     retention (ms), entries to remove at most, then the groups that will read this stream, joined or not yet
-- returns  {removed, 1 if there may be more, now (ms), group, …}, a group as {name, pending, lag or -1, held}
--          held: its oldest entry that is pending or unread, or ''. A stream without any group is left alone.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local function oldest(one, other)  -- of two entry ids or ''; as numbers ids would lose their last digits
  if one == '' or other == '' then
    return one .. other
  end
  local a, b = string.match(one, '%d+'), string.match(other, '%d+')
  if a == b then
    a, b = string.match(one, '%d+$'), string.match(other, '%d+$')
  end
  return (#a < #b or #a == #b and a < b) and one or other
end

local function held_by(group)
  local pending = redis.call('XPENDING', KEYS[1], group['name'], '-', '+', 1)[1]
  -- An error when nothing can follow, the last id being the greatest there is.
  local unread = redis.pcall('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  return oldest(pending and pending[1] or '', unread and unread[1] or '')
end

local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err or #groups == 0 then
  return {0, 0, now}
end

local bound = string.format('%.0f-0', math.max(0, now - ARGV[1]))
local answer, joined = {0, 0, now}, {}
for _, fields in ipairs(groups) do
  local group = {}
  for i = 1, #fields, 2 do
    group[fields[i]] = fields[i + 1]
  end
  local held = held_by(group)
  bound = oldest(bound, held)
  answer[#answer + 1] = {group['name'], group['pending'], group['lag'] or -1, held}
  joined[group['name']] = true
end

-- A worker joins a stream a moment after its first entry, or when it is back; until then all of it is unread.
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
for i = 3, #ARGV do
  if first and not joined[ARGV[i]] then
    bound = oldest(bound, first[1])
    answer[#answer + 1] = {ARGV[i], 0, redis.call('XLEN', KEYS[1]), first[1]}
  end
end

-- Whole nodes as far as the limit allows, for that is cheap; when there is none left, what is due of the next node.
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', bound, 'LIMIT', ARGV[2])
answer[2] = removed > 0 and 1 or 0
if removed == 0 then
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', bound)
end
answer[1] = removed
return answer
