#!lua flags=allow-oom
-- Record the success of events that claim_fresh.lua claimed, many in one call. What is not as plain is left to
-- settle.lua, a repeated call too: the lock is gone by then.
-- KEYS[1] stream of the entries   KEYS[2] its retries (zset)   KEYS[3] prefix of the events' states   KEYS[4] of their
-- locks   KEYS[5] of their lock-signals (they wake python-redis-lock's waiters)
-- ARGV[1] {{what follows the prefixes, token, entry id}, ...} by MessagePack   ARGV[2] group
-- ARGV[3] seconds a done mark is kept where the state that the claim wrote is gone
-- Returns a character an event: 1 recorded, 0 ask settle.lua
local call, events = redis.call, cmsgpack.unpack(ARGV[1])
local states, signals = KEYS[3], KEYS[5]
local recorded, locks, given_up, woken, ids = {}, {}, {}, {}, {}
for i, event in ipairs(events) do
  locks[i] = KEYS[4] .. event[1]
end
for i, holder in ipairs(call('MGET', unpack(locks))) do
  local event = events[i]
  local state = states .. event[1]
  -- Who has the lock has the claim: nobody else can have had it since.
  local added = holder == event[2] and redis.pcall('HSET', state, 'state', 'done', 'token', holder)
  recorded[i] = '0'
  if type(added) == 'number' then
    if added > 0 then
      call('EXPIRE', state, ARGV[3])
    end
    recorded[i] = '1'
    local n = #ids + 1
    woken[n], ids[n] = signals .. event[1], event[3]
    given_up[2 * n - 1], given_up[2 * n] = locks[i], woken[n]
  end
end
if #ids > 0 then
  call('DEL', unpack(given_up))
  for _, signal in ipairs(woken) do
    call('LPUSH', signal, 1)
    call('PEXPIRE', signal, 1000)
  end
  redis.pcall('ZREM', KEYS[2], unpack(ids))
  redis.pcall('XACK', KEYS[1], ARGV[2], unpack(ids))
end
return table.concat(recorded)
