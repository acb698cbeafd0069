-- Remove a consumer that holds nothing; one with pending entries stays, for they would be lost with it.
-- KEYS[1] stream  ARGV[1] group  ARGV[2] consumer
-- Returns 1 if it was removed.
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err or #pending > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
