-- Adds one event to its stream, once, if its term is the one of the lease. Idempotent: a call whose reply was lost may be repeated.
-- KEYS     lease, published marker of the event, types set, stream, other stream
-- ARGV     term, type name, cap on types, marker ttl (s), then the entry's fields: name, value, …
-- returns  {'fenced', stored term} | {'duplicate', entry id} | {'published', entry id} | {'published', entry id, why it has no marker}

-- Not "an earlier one": a Redis that lost the record, or has an old copy, accepts nobody until the lease is held anew.
local stored = redis.call('HGET', KEYS[1], 'term') or ''
if stored ~= ARGV[1] then
  return {'fenced', stored}
end

-- Keys of a wrong type, written by hand, keep no event out: workers tell of them, and read the other stream. What Redis
-- refuses otherwise does: unmarked an event would come twice, and workers do not look for a type that is not in the set.
local function refused(answer)
  return type(answer) == 'table' and not string.find(tostring(answer.err), 'WRONGTYPE', 1, true)
end
local earlier = redis.pcall('GET', KEYS[2])
if type(earlier) == 'string' then
  -- A write of its own, after that of the entry: what then waits for its durability waits for the entry's as well.
  redis.call('EXPIRE', KEYS[2], ARGV[4])
  return {'duplicate', earlier}
end
if refused(earlier) then
  return earlier
end

local stream = KEYS[4]
local known = redis.pcall('SISMEMBER', KEYS[3], ARGV[2])
if refused(known) then
  return known
end
if known == 0 then
  local name = ARGV[2]
  if redis.call('SCARD', KEYS[3]) >= tonumber(ARGV[3]) then
    stream = KEYS[5]
    name = string.match(stream, '[^:]*$')
  end
  redis.call('SADD', KEYS[3], name)
end

local id = redis.pcall('XADD', stream, '*', unpack(ARGV, 5))
if type(id) == 'table' and not refused(id) then
  id = redis.pcall('XADD', KEYS[5], '*', unpack(ARGV, 5))
end
if type(id) == 'table' then
  return id
end
-- The event is there: an error now would have it sent again, and added again, and again.
local marked = redis.pcall('SET', KEYS[2], id, 'EX', ARGV[4])
return {'published', id, marked.err}
