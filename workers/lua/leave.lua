#!lua flags=allow-oom
-- Remove a consumer. What it still holds goes to the consumer `left`, with the time it has been idle, for
-- the group's others to take over; a consumer takes its pending entries with it.
-- KEYS[1] stream  ARGV[1] group  ARGV[2] consumer
-- Returns the ids of entries it held that are no longer in the stream.
local key, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local gone = {}
local pending = redis.pcall('XPENDING', key, group, '-', '+', 100, consumer)
if pending.err then
  return gone
end
while #pending > 0 do
  for _, entry in ipairs(pending) do
    local moved = redis.call('XCLAIM', key, group, 'left', 0, entry[1], 'IDLE', entry[3], 'JUSTID')
    if #moved == 0 then
      gone[#gone + 1] = entry[1]
    end
  end
  pending = redis.call('XPENDING', key, group, '-', '+', 100, consumer)
end
redis.call('XGROUP', 'DELCONSUMER', key, group, consumer)
return gone
