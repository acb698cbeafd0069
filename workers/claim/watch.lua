#!lua flags=allow-oom
-- Look whether a line or a business key has stood still: the same event is its first, or has it, since long ago.
-- Repeating the call is harmless; only one look is told that this is new.
-- KEYS[1] what was seen of the group's lines and keys (hash: name -> "since ms|seen at ms|1 once it was told|first")
-- KEYS[2] line (zset) or business key (string)  KEYS[3] prefix of the events' states
-- ARGV[1] line or key  ARGV[2] ms after which it stands still  ARGV[3] 1: note what is seen
-- Returns 0 if it moves, else {ms since, 1 if that is new, stream, entry id, event id, state or '', ms until its retry or 0}
local HOUR = 3600000
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local function read(noted)
  local since, seen, told, first = string.match(noted, '^(%d+)|(%d+)|(%d)|(.*)$')
  return tonumber(since), tonumber(seen), told == '1', first
end

local first
if ARGV[1] == 'line' then
  first = redis.pcall('ZRANGE', KEYS[2], 0, 0)[1]
else
  first = redis.pcall('GET', KEYS[2])
end
if type(first) ~= 'string' then
  redis.pcall('HDEL', KEYS[1], KEYS[2])
  return 0
end
local noted = redis.pcall('HGET', KEYS[1], KEYS[2])
local since, _, told, before = read(type(noted) == 'string' and noted or '')
if before ~= first or since > now then
  since, told = now, false
end
local stands = now - since >= tonumber(ARGV[2])
if ARGV[3] == '1' then
  redis.pcall('HSET', KEYS[1], KEYS[2],
              string.format('%.0f|%.0f|%d|%s', since, now, stands and 1 or 0, first))
  redis.pcall('PEXPIRE', KEYS[1], HOUR)
  -- What nobody waits for any more is forgotten by and by.
  local some = redis.pcall('HRANDFIELD', KEYS[1], 2, 'WITHVALUES')
  for i = 1, #some, 2 do
    local _, seen = read(some[i + 1])
    if not seen or now - seen > HOUR then
      redis.pcall('HDEL', KEYS[1], some[i])
    end
  end
end
if not stands then
  return 0
end

local stream, id, event_id
if ARGV[1] == 'line' then
  local ms, seq
  ms, seq, stream = string.match(first, '^0*(%d+)-0*(%d+)|(.*)$')
  id = ms and ms .. '-' .. seq
else
  stream, id = string.match(redis.pcall('HMGET', first, 'entry')[1] or '', '^(.*)|(%d+-%d+)$')
end
local entry = id and redis.pcall('XRANGE', stream, id, id)[1]
for i = 1, entry and #entry[2] or 0, 2 do
  event_id = entry[2][i] == 'event_id' and entry[2][i + 1] or event_id
end
local key = ARGV[1] == 'line' and KEYS[3] .. (event_id or '') or first
local state, due = unpack(redis.pcall('HMGET', key, 'state', 'due'))
local left = state == 'retry' and (tonumber(due or '') or now) - now or 0
return {now - since, told and 0 or 1, stream or '', id or '', event_id or '', state or '', math.max(0, left)}
