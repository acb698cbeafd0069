#!lua flags=allow-oom
-- Make a dead letter of a pending entry that nobody can read. Repeating the call is harmless.
-- KEYS[1] stream  KEYS[2] dead letters (stream)
-- ARGV[1] group  ARGV[2] entry id  ARGV[3] error
-- The letter is as settle.lua's, but for an entry with more than 500 fields: only the first ones are kept.
-- Returns 1, or 0 if the entry is not pending: it has its letter.
local key, group, id = KEYS[1], ARGV[1], ARGV[2]
if #redis.call('XPENDING', key, group, id, id, 1) == 0 then
  return 0
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
return 1
