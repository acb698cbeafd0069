#!lua flags=allow-oom
-- Make a dead letter of a pending entry that nobody can read. Repeating the call repeats the answer.
-- KEYS[1] stream  KEYS[2] dead letters (stream)  KEYS[3] retries of the stream (zset: due ms -> entry id)
-- ARGV[1] group  ARGV[2] entry id  ARGV[3] error
-- The letter is as settle.lua's, but for an entry with more than 500 fields: only the first ones are kept.
-- Returns 1 if it has its letter, 0 if somebody has acknowledged it by hand.
local LATEST = 100 -- letters in which that of an earlier call is looked for
local key, group, id = KEYS[1], ARGV[1], ARGV[2]

local function has_letter()
  for _, letter in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', LATEST)) do
    local value = {}
    for i = 1, #letter[2], 2 do
      value[letter[2][i]] = letter[2][i + 1]
    end
    if value.stream == key and value.entry == id then
      return true
    end
  end
  return false
end

if #redis.call('XPENDING', key, group, id, id, 1) == 0 then
  return has_letter() and 1 or 0
end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local entry = redis.call('XRANGE', key, id, id)[1]
local letter = entry and {unpack(entry[2], 1, math.min(#entry[2], 1000))} or {}
for _, value in ipairs({'reason', 'decode', 'error', ARGV[3], 'handler', '', 'attempts', 0, 'finished', '',
                        'stream', key, 'entry', id, 'died_at', now}) do
  letter[#letter + 1] = value
end
redis.call('XADD', KEYS[2], '*', unpack(letter))
redis.call('XACK', key, group, id)
redis.pcall('ZREM', KEYS[3], id)
return 1
