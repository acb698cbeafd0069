#!lua flags=allow-oom
-- Note in an event's state that this attempt is about to run with nothing beside it that could kill its process.
-- Repeating the call repeats the answer.
-- KEYS[1] state  ARGV[1] token of the claim  ARGV[2] attempt
-- Returns the attempt that was noted before, 0 for none; -1 if the claim was lost.
local owner, alone, before = unpack(redis.call('HMGET', KEYS[1], 'token', 'alone', 'alone_before'))
if owner ~= ARGV[1] then
  return -1
end
if alone == ARGV[2] then
  return tonumber(before) or 0
end
alone = tonumber(alone) or 0
redis.call('HSET', KEYS[1], 'alone', ARGV[2], 'alone_before', alone)
return alone
