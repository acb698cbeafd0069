#!lua flags=allow-oom
-- Claim an event for one attempt, or say why not. Repeating the call with the same token repeats the answer.
-- KEYS[1] state of the event (hash)   KEYS[2] lock of the event (string, python-redis-lock's)
-- ARGV[1] token of this claim   ARGV[2] event lease, ms   ARGV[3] seconds an unsettled state is kept
-- Returns {'run', attempt, crashes, handler, mark, ...} | {'duplicate'} | {'busy', ms left} | {'waiting', ms left}
-- Crashes are the earlier attempts of which nobody said how they ended.
local token = ARGV[1]
local state, owner, attempts, due, crashes = unpack(
  redis.call('HMGET', KEYS[1], 'state', 'token', 'attempts', 'due', 'crashes'))
if state == 'done' or state == 'dead' then
  return {'duplicate'}
end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= token then
  return {'busy', redis.call('PTTL', KEYS[2])}
end
if state == 'retry' then
  local now = redis.call('TIME')
  local left = tonumber(due) - (now[1] * 1000 + math.floor(now[2] / 1000))
  if left > 0 then
    return {'waiting', left}
  end
end
attempts, crashes = tonumber(attempts or 0), tonumber(crashes or 0)
if not (state == 'running' and owner == token) then
  attempts = attempts + 1
  if state == 'running' then
    crashes = redis.call('HINCRBY', KEYS[1], 'crashes', 1)
  end
  redis.call('HSET', KEYS[1], 'state', 'running', 'token', token, 'attempts', attempts)
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
redis.call('SET', KEYS[2], token, 'PX', ARGV[2])
local answer = {'run', attempts, crashes}
if state then
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 'h:' then
      answer[#answer + 1] = string.sub(fields[i], 3)
      answer[#answer + 1] = fields[i + 1]
    end
  end
end
return answer
