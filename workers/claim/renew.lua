#!lua flags=allow-oom
-- Keep a claim while its handlers run.
-- KEYS[1] state  KEYS[2] lock
-- ARGV[1] token  ARGV[2] event lease, ms  ARGV[3] seconds the state is kept from now on, if that is longer than it was
-- Returns 1 if the claim is still ours, 0 if it was lost.
local state, owner = unpack(redis.call('HMGET', KEYS[1], 'state', 'token'))
if owner ~= ARGV[1] or state ~= 'running' then
  return 0
end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3], 'GT')
return 1
