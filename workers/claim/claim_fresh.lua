#!lua flags=allow-oom
-- Claim events that nobody has met before, many in one call. What is not as plain as that is left to claim.lua,
-- a repeated call too: the state is there by then.
-- KEYS[1] prefix of the events' states   KEYS[2] prefix of their locks
-- ARGV[1] {{what follows the prefixes, token}, ...} by MessagePack   ARGV[2] event lease, ms
-- ARGV[3] seconds the state is kept: as long as a done mark, so that settle_done.lua need not say it again
-- Returns a character an event: 1 claimed for its first attempt, 0 ask claim.lua
local call, events = redis.call, cmsgpack.unpack(ARGV[1])
local prefix, locks, lease, ttl = KEYS[1], KEYS[2], ARGV[2], ARGV[3]
local claimed, states = {}, {}
for i, event in ipairs(events) do
  states[i] = prefix .. event[1]
end
-- As few commands as there can be: each costs more than what it does.
local all_new = call('EXISTS', unpack(states)) == 0
for i, event in ipairs(events) do
  local state, token = states[i], event[2]
  claimed[i] = '0'
  if (all_new or call('EXISTS', state) == 0) and call('SET', locks .. event[1], token, 'NX', 'PX', lease) then
    call('HSET', state, 'state', 'running', 'token', token, 'attempts', 1)
    call('EXPIRE', state, ttl)
    claimed[i] = '1'
  end
end
return table.concat(claimed)
