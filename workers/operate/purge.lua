#!lua flags=allow-oom
-- Delete one dead letter for good. Repeating the call with the same answer key repeats the answer.
-- KEYS[1] dead letters (stream)  KEYS[2] audit (stream)  KEYS[3] answer (string)
-- ARGV[1] letter id  [2] group  [3] who
-- Returns purged | gone
local earlier = redis.call('GET', KEYS[3])
if earlier then
  return earlier
end
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then
  return 'gone'
end
local value = {}
for i = 1, #letter[2], 2 do
  value[letter[2][i]] = letter[2][i + 1]
end
local now = redis.call('TIME')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', 'at', now[1] * 1000 + math.floor(now[2] / 1000),
  'who', ARGV[3], 'action', 'purge', 'group', ARGV[2], 'event_id', value.event_id or '',
  'event_type', value.event_type or '', 'letter', ARGV[1], 'reason', value.reason or '')
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[3], 'purged', 'EX', 60)
return 'purged'
