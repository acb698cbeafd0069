-- Adds one dead letter of the bridge, once, while there is room. Idempotent: a call whose reply was lost may be repeated.
-- KEYS     stream of the bridge's dead letters, marker of the letter
-- ARGV     most letters, marker ttl (s), then the letter's fields: name, value, …
-- returns  {'kept', entry id} | {'kept', entry id, why it has no marker} | {'duplicate', entry id} | {'letters_full', letters there are}

local earlier = redis.call('GET', KEYS[2])
if earlier and #redis.call('XRANGE', KEYS[1], earlier, earlier) > 0 then
  -- A write of its own: what then waits for its durability waits for the letter's as well.
  redis.call('EXPIRE', KEYS[2], ARGV[2])
  return {'duplicate', earlier}
end

-- Nothing is trimmed to make room: Feishu had its ack for what is there.
local there = redis.call('XLEN', KEYS[1])
if there >= tonumber(ARGV[1]) then
  return {'letters_full', tostring(there)}
end

local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
-- The letter is there: an error now would have it sent again, and added again, and again.
local marked = redis.pcall('SET', KEYS[2], id, 'EX', ARGV[2])
return {'kept', id, marked.err}
