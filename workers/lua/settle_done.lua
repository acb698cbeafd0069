#!lua flags=allow-oom
-- Record the success of events that claim_fresh.lua claimed, many in one call. What is not as plain is left to
-- settle.lua, a repeated call too: the lock is gone by then.
-- KEYS[1] stream of the entries   KEYS[2] retries (zset)   KEYS[3] prefix of the events' states   KEYS[4] of their
-- locks   KEYS[5] of their lock-signals (they wake python-redis-lock's waiters)
-- ARGV[1] {{what follows the prefixes, token, entry id}, ...} by MessagePack   ARGV[2] group
-- Returns a character an event: 1 recorded, 0 ask settle.lua
local call, events = redis.call, cmsgpack.unpack(ARGV[1])
local states, signals = KEYS[3], KEYS[5]
local recorded, locks, given_up, ids, members = {}, {}, {}, {}, {}
for i, event in ipairs(events) do
  locks[i] = KEYS[4] .. event[1]
end
for i, holder in ipairs(call('MGET', unpack(locks))) do
  local event = events[i]
  recorded[i] = '0'
  -- Who has the lock has the claim: nobody else can have had it since.
  if holder == event[2] and type(redis.pcall('HSET', states .. event[1], 'state', 'done', 'token', holder)) == 'number' then
    call('LPUSH', signals .. event[1], 1)
    call('PEXPIRE', signals .. event[1], 1000)
    recorded[i] = '1'
    local n = #ids + 1
    given_up[n], ids[n], members[n] = locks[i], event[3], KEYS[1] .. '|' .. event[3]
  end
end
if #ids > 0 then
  call('DEL', unpack(given_up))
  call('ZREM', KEYS[2], unpack(members))
  call('XACK', KEYS[1], ARGV[2], unpack(ids))
end
return table.concat(recorded)
