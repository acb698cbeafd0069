#!lua
-- Bring one event to a group again, through the group's replay stream. Repeating the call with the same answer key
-- repeats the answer. Without allow-oom on purpose: a full Redis takes no replays.
-- KEYS[1] stream the event lies in: dead letters or events  KEYS[2] state of the event (hash)  KEYS[3] replay stream
-- KEYS[4] types with a replay stream (set)  KEYS[5] audit (stream)  KEYS[6] answer (string)
-- ARGV[1] replay: a dead letter, which is moved; refeed: an event of which nothing is known; again: a done one too
-- ARGV[2] id in KEYS[1]  [3] event id  [4] type name of the replay stream  [5] group  [6] who
-- ARGV[7] 1: change nothing, only say what would happen
-- Returns moved | gone | changed (another event has the id by now) | the state that forbids it:
-- done, running, retry, dead
local action = ARGV[1]
local forbidding = {
  replay = {done = true, running = true, retry = true},
  refeed = {done = true, running = true, retry = true, dead = true},
  again = {running = true, retry = true, dead = true},
}
local earlier = redis.call('GET', KEYS[6])
if earlier then
  return earlier
end
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if not found then
  return 'gone'
end
local of_letter = {
  reason = true, error = true, handler = true, attempts = true, finished = true, stream = true, entry = true,
  died_at = true, replayed_at = true, first_trace = true, traceparent = true, tracestate = true,
}
local value, event = {}, {}
for i = 1, #found[2], 2 do
  local name = found[2][i]
  value[name] = found[2][i + 1]
  if not of_letter[name] then
    event[#event + 1] = name
    event[#event + 1] = value[name]
  end
end
if value.event_id ~= ARGV[3] then
  return 'changed'
end
local state = redis.call('HGET', KEYS[2], 'state')
if state and forbidding[action][state] then
  return state
end
-- A key of a wrong type stops the script here, before its first write.
redis.call('XLEN', KEYS[3])
redis.call('SCARD', KEYS[4])
redis.call('XLEN', KEYS[5])
if ARGV[7] == '1' then
  return 'moved'
end

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local first_trace = value.first_trace or ''
if first_trace == '' then
  first_trace = value.traceparent or ''
end
for _, part in ipairs({'traceparent', '', 'tracestate', '', 'replayed_at', now, 'first_trace', first_trace}) do
  event[#event + 1] = part
end
redis.call('XADD', KEYS[3], '*', unpack(event))
redis.call('SADD', KEYS[4], ARGV[4])
-- For the claim it is a retry that is due. No expiry before it: the marks must outlive the wait for a worker.
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'state', 'retry', 'due', 0, 'attempts', 0, 'crashes', 0)
if action == 'replay' then
  for handler in string.gmatch(value.finished or '', '[^\n]+') do
    redis.call('HSET', KEYS[2], 'h:' .. handler, '')
  end
  redis.call('XDEL', KEYS[1], ARGV[2])
end
redis.call('XADD', KEYS[5], 'MAXLEN', '~', 10000, '*', 'at', now, 'who', ARGV[6],
  'action', action == 'replay' and 'replay' or 'refeed', 'group', ARGV[5], 'event_id', ARGV[3],
  'event_type', value.event_type or '', 'letter', action == 'replay' and ARGV[2] or '', 'reason', value.reason or '')
redis.call('SET', KEYS[6], 'moved', 'EX', 60)
return 'moved'
