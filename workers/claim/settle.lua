#!lua flags=allow-oom
-- Record how an attempt ended; only the claim's token may. Repeating the call repeats the answer.
-- KEYS[1] state  KEYS[2] lock  KEYS[3] lock-signal (wakes python-redis-lock's waiters)
-- KEYS[4] stream of the entry  KEYS[5] its retries (zset)  KEYS[6] dead letters (stream)
-- KEYS[7] of a dead letter whose kind is bounded in number: the ids of its kind (zset); the oldest one goes
-- ARGV[1] token  [2] verdict: done, retry, crash, dead or return  [3] group  [4] entry id
-- ARGV[5] ms until the retry; with KEYS[7] how many letters of the kind are kept
-- ARGV[6] reason  [7] error  [8] handler  [9] seconds a done or dead mark is kept, [10] an unsettled state
-- ARGV[11] how many arguments are marks: handler, mark, ...  [12] how many follow for handlers that want another attempt
-- on their own time: handler, attempts so far, ms; then both, then, for dead, the entry as the worker has it
-- `return` undoes the claim: the attempt does not count, nor did it run alone. `crash` is a retry after an attempt whose process died.
-- A dead letter also names the handlers that had succeeded, one a line: a replay leaves them out, when their marks are
-- long gone. Spoilt retries or a spoilt stream keep no outcome from being recorded: taken over as idle, a retry comes
-- all the same. Returns 0 if the claim was lost, else 1 and one more for each dead letter that made room for this one.
local state, owner, attempts, business = unpack(redis.call('HMGET', KEYS[1], 'state', 'token', 'attempts', 'business'))
if owner ~= ARGV[1] then
  return 0
end
if state ~= 'running' then
  return 1
end
attempts = tonumber(attempts) or 0
local verdict, id = ARGV[2], ARGV[4]
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local marks_end, displaced = 12 + ARGV[11], 0
if verdict == 'dead' then
  -- A key of a wrong type stops the script here, before its first write.
  redis.call('XLEN', KEYS[6])
  if KEYS[7] then
    redis.call('ZCARD', KEYS[7])
  end
end
for i = 13, marks_end, 2 do
  redis.call('HSET', KEYS[1], 'h:' .. ARGV[i], ARGV[i + 1])
end
if verdict == 'done' then
  -- Whoever asks for its business keys must see which of the handlers succeeded.
  if redis.call('HEXISTS', KEYS[1], 'lock') == 0 then
    redis.call('DEL', KEYS[1])
  end
  redis.call('HSET', KEYS[1], 'state', 'done', 'token', ARGV[1])
elseif verdict == 'dead' then
  local entry = redis.pcall('XRANGE', KEYS[4], id, id)[1]
  -- Where somebody deleted it, or filled it by hand beyond what Lua can hand on, the worker's copy has to do.
  local letter = entry and #entry[2] <= 1000 and entry[2] or {unpack(ARGV, marks_end + 1)}
  local finished = {}
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 'h:' and fields[i + 1] == '' then
      finished[#finished + 1] = string.sub(fields[i], 3)
    end
  end
  for _, value in ipairs({'reason', ARGV[6], 'error', ARGV[7], 'handler', ARGV[8], 'attempts', attempts,
                          'finished', table.concat(finished, '\n'),
                          'stream', KEYS[4], 'entry', id, 'died_at', now}) do
    letter[#letter + 1] = value
  end
  local letter_id = redis.call('XADD', KEYS[6], '*', unpack(letter))
  if KEYS[7] then
    redis.call('ZADD', KEYS[7], now, letter_id)
    for _ = tonumber(ARGV[5]) + 1, redis.call('ZCARD', KEYS[7]) do
      local oldest = redis.call('ZRANGE', KEYS[7], 0, 0)[1]
      redis.call('ZREM', KEYS[7], oldest)
      displaced = displaced + (tonumber(redis.pcall('XDEL', KEYS[6], oldest)) or 0)
    end
  end
  redis.call('HSET', KEYS[1], 'state', 'dead', 'error', ARGV[7])
else
  if verdict == 'return' then
    redis.call('HSET', KEYS[1], 'attempts', attempts - 1)
    local alone, before = unpack(redis.call('HMGET', KEYS[1], 'alone', 'alone_before'))
    if tonumber(alone) == attempts then
      redis.call('HDEL', KEYS[1], 'alone')
      if (tonumber(before) or 0) > 0 then
        redis.call('HSET', KEYS[1], 'alone', before)
      end
    end
  elseif verdict == 'crash' then
    redis.pcall('HINCRBY', KEYS[1], 'crashes', 1)
  end
  local crashes = tonumber(redis.call('HGET', KEYS[1], 'crashes')) or 0
  for i = marks_end + 1, marks_end + ARGV[12], 3 do
    local made, wait = ARGV[i + 1], ARGV[i + 2]
    redis.call('HSET', KEYS[1], 't:' .. ARGV[i], string.format('%d:%.0f:%d:%d', made, now + wait, wait, crashes))
  end
  redis.call('HSET', KEYS[1], 'state', 'retry', 'due', now + ARGV[5], 'wait', ARGV[5], 'error', ARGV[7])
  redis.pcall('ZADD', KEYS[5], now + ARGV[5], id)
end
local kept = ARGV[10] + math.ceil(ARGV[5] / 1000)
if verdict == 'done' or verdict == 'dead' then
  kept = ARGV[9]
  redis.pcall('ZREM', KEYS[5], id)
  redis.pcall('XACK', KEYS[4], ARGV[3], id)
end
redis.call('EXPIRE', KEYS[1], kept)
-- Its business keys end with it, unless they are another's by now.
for key in string.gmatch(business or '', '[^\n]+') do
  if redis.pcall('GET', key) == KEYS[1] then
    redis.call('EXPIRE', key, kept)
  end
end
if redis.pcall('GET', KEYS[2]) == ARGV[1] then
  redis.call('DEL', KEYS[3])
  redis.call('LPUSH', KEYS[3], 1)
  redis.call('PEXPIRE', KEYS[3], 1000)
  redis.call('DEL', KEYS[2])
end
return 1 + displaced
