#!lua flags=allow-oom
-- Take entries of an ordered stream, new ones or those of given ids, and put each into the line of its key, in one
-- step: nobody may come in between with a later entry of the same key.
-- KEYS[1] stream  KEYS[2] its retries (zset: due ms -> entry id)  KEYS[3] what the names of lines begin with
-- ARGV[1] group  [2] consumer  [3] JSON: event type -> the names that lead from the envelope to the key
-- ARGV[4] seconds a line is kept  [5] how many to give at most; what is too much becomes due
-- ARGV[6] new entries at most, 0 to take those of the ids  [7] pending entries beyond which nothing new is read
-- ARGV[8] bytes of an envelope that is searched for its key  [9...] ids
-- A line is a zset of "padded entry id|stream", which sort as their stream does; score 0: has begun, 1: waits.
-- Returns {new entries read, -1 if too many are pending; the last id delivered to the group; ids of entries that were
-- deleted or acknowledged by hand; lines in which another one is first; {line or '', id, fields} of those that may
-- run; bytes of the largest envelope}
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local paths, most, room = cjson.decode(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[6])
local searched, largest = tonumber(ARGV[8]), 0
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local function line_of(fields)
  local value = {}
  for i = 1, #fields, 2 do
    value[fields[i]] = fields[i + 1]
  end
  local path, size = paths[value.event_type or ''], #(value.envelope or '')
  largest = math.max(largest, size)
  if not path or size == 0 or size > searched then
    return ''
  end
  local read, key = pcall(cjson.decode, value.envelope)
  if not read then -- half of a surrogate pair, which cjson refuses
    read, key = pcall(cjson.decode, (string.gsub(value.envelope, '\\u[dD][89a-fA-F]%x%x', '\\ufffd')))
  end
  for _, name in ipairs(path) do
    key = read and type(key) == 'table' and key[name]
  end
  if type(key) == 'number' and key == math.floor(key) then
    key = string.format('%.0f', key)
  end
  if type(key) ~= 'string' or key == '' then
    return ''
  end
  local short = #key <= 64 and not string.find(key, '[^%w_-]')
  return KEYS[3] .. ':' .. value.event_type .. ':' .. (short and key or redis.sha1hex(key))
end

local function padded(number)
  return string.rep('0', 20 - #number) .. number
end

local function is_first(line, id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local member = padded(ms) .. '-' .. padded(seq) .. '|' .. stream
  local stands = checked(redis.pcall('ZADD', line, 'NX', 1, member))
  if type(stands) == 'table' then
    -- Something else lies there: it is not to stop other keys. The claim of this one will say so.
    return true
  end
  redis.call('EXPIRE', line, ARGV[4])
  return redis.call('ZRANGE', line, 0, 0)[1] == member
end

local entries, gone, read, last = {}, {}, 0, '0-0'
if room == 0 then
  local ids, found = {unpack(ARGV, 9)}, {}
  entries = redis.call('XCLAIM', stream, group, consumer, 0, unpack(ids))
  for _, entry in ipairs(entries) do
    found[entry[1]] = true
  end
  for _, id in ipairs(ids) do
    -- Whoever has settled it since it was asked for has left it in the stream, and removed its retry.
    if not found[id] then
      local retries = redis.pcall('ZREM', KEYS[2], id)
      if retries == 1 or #redis.call('XRANGE', stream, id, id) == 0 then
        gone[#gone + 1] = id
      end
    end
  end
else
  -- What waits for its retry is not ahead of anything: a day's outage of one key must not stop the others.
  local retries = redis.pcall('ZCARD', KEYS[2])
  retries = type(retries) == 'number' and retries or 0
  if redis.call('XPENDING', stream, group)[1] - retries < tonumber(ARGV[7]) then
    local answer = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', room, 'STREAMS', stream, '>')
    entries = answer and answer[1] and answer[1][2] or {}
    read = #entries
  else
    read = -1
  end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == group then
      for i = 1, #info, 2 do
        last = info[i] == 'last-delivered-id' and info[i + 1] or last
      end
    end
  end
end

local given, behind, lines = {}, {}, {}
for _, entry in ipairs(entries) do
  local id, line = entry[1], line_of(entry[2])
  if line ~= '' and not is_first(line, id) then
    redis.pcall('ZREM', KEYS[2], id)
    if not lines[line] then
      lines[line] = true
      behind[#behind + 1] = line
    end
  elseif #given < most then
    given[#given + 1] = {line, id, entry[2]}
  else
    redis.pcall('ZADD', KEYS[2], now, id)
  end
end
return {read, last, gone, behind, given, largest}
