-- Remove a consumer. What it still holds goes to the consumer `left`, with the time it has been idle, for
-- the group's others to take over; a consumer takes its pending entries with it.
-- KEYS[1] stream  ARGV[1] group  ARGV[2] consumer
-- Returns 1 if it was removed.
local key, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local pending = redis.pcall('XPENDING', key, group, '-', '+', 100, consumer)
if pending.err then
  return 0
end
while #pending > 0 do
  for _, entry in ipairs(pending) do
    redis.call('XCLAIM', key, group, 'left', 0, entry[1], 'IDLE', entry[3], 'JUSTID')
  end
  pending = redis.call('XPENDING', key, group, '-', '+', 100, consumer)
end
redis.call('XGROUP', 'DELCONSUMER', key, group, consumer)
return 1
