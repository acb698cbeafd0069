#!lua flags=allow-oom
-- Record successes in which nothing else is to be said, many in one call. What is not as plain is left to settle.lua,
-- a repeated call too: the state is done by then.
-- KEYS[1] stream of the entries   KEYS[2] retries (zset)   KEYS[3] prefix of the events' states   KEYS[4] of their
-- locks   KEYS[5] of their lock-signals (they wake python-redis-lock's waiters)
-- ARGV[1] {{what follows the prefixes, token, entry id}, ...} by MessagePack   ARGV[2] group
-- ARGV[3] seconds a done mark is kept
-- Returns a character an event: 1 recorded, 0 ask settle.lua
local recorded, states, locks, ids, members = {}, {}, {}, {}, {}
local plain = {}
for i, event in ipairs(cmsgpack.unpack(ARGV[1])) do
  local state = KEYS[3] .. event[1]
  local found = redis.pcall('HMGET', state, 'state', 'token')
  recorded[i] = '0'
  if found[1] == 'running' and found[2] == event[2] then
    recorded[i] = '1'
    local n = #plain + 1
    plain[n], states[n], locks[n] = event, state, KEYS[4] .. event[1]
    ids[n], members[n] = event[3], KEYS[1] .. '|' .. event[3]
  end
end
if #plain > 0 then
  -- As few commands as there can be: each costs more than what it does.
  redis.call('DEL', unpack(states))
  local holders, given_up, signals = redis.call('MGET', unpack(locks)), {}, {}
  for n, event in ipairs(plain) do
    redis.call('HSET', states[n], 'state', 'done', 'token', event[2])
    redis.call('EXPIRE', states[n], ARGV[3])
    if holders[n] == event[2] then
      local signal = KEYS[5] .. event[1]
      signals[#signals + 1] = signal
      given_up[#given_up + 1], given_up[#given_up + 2] = locks[n], signal
    end
  end
  if #signals > 0 then
    redis.call('DEL', unpack(given_up))
  end
  for _, signal in ipairs(signals) do
    redis.call('LPUSH', signal, 1)
    redis.call('PEXPIRE', signal, 1000)
  end
  redis.call('ZREM', KEYS[2], unpack(members))
  redis.call('XACK', KEYS[1], ARGV[2], unpack(ids))
end
return table.concat(recorded)
