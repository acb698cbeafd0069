#!lua flags=allow-oom
-- Claim events that nobody has met before, many in one call. What is not as plain as that is left to claim.lua,
-- a repeated call too: the state is there by then.
-- KEYS[1] prefix of the events' states   KEYS[2] prefix of their locks
-- ARGV[1] {{what follows the prefixes, token}, ...} by MessagePack   ARGV[2] event lease, ms
-- ARGV[3] seconds an unsettled state is kept
-- Returns a character an event: 1 claimed for its first attempt, 0 ask claim.lua
local claimed = {}
for i, event in ipairs(cmsgpack.unpack(ARGV[1])) do
  local state, lock, token = KEYS[1] .. event[1], KEYS[2] .. event[1], event[2]
  claimed[i] = '0'
  if redis.call('EXISTS', state) == 0 and redis.call('SET', lock, token, 'NX', 'PX', ARGV[2]) then
    redis.call('HSET', state, 'state', 'running', 'token', token, 'attempts', 1)
    redis.call('EXPIRE', state, ARGV[3])
    claimed[i] = '1'
  end
end
return table.concat(claimed)
