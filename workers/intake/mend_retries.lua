#!lua flags=allow-oom
-- After Redis' clock went back: retries that were noted before that would come late. None comes later than it was asked
-- for, counted from now. One page; repeating it is harmless.
-- KEYS[1] retries of a stream (zset: due ms -> entry id)  KEYS[2] the stream  KEYS[3] prefix of the events' states
-- ARGV[1] event lease, ms: who waits no longer need not be looked at  ARGV[2] where to go on, '0' at first
-- Returns where to go on, '' at the end.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local function due_of(id)
  local entry = redis.pcall('XRANGE', KEYS[2], id, id)[1]
  local event_id
  for i = 1, entry and #entry[2] or 0, 2 do
    event_id = entry[2][i] == 'event_id' and entry[2][i + 1] or event_id
  end
  local key = KEYS[3] .. (event_id or '')
  local state, due, wait = unpack(redis.pcall('HMGET', key, 'state', 'due', 'wait'))
  due, wait = tonumber(due or ''), tonumber(wait or '')
  if state ~= 'retry' then
    return now -- it waits for a look at something else
  end
  if due and wait and due - now > wait then
    due = now + wait
    redis.call('HSET', key, 'due', due)
  end
  return due
end

local page = checked(redis.pcall('ZSCAN', KEYS[1], ARGV[2], 'COUNT', 100))
if page.err then
  return ''
end
for i = 1, #page[2], 2 do
  local id, score = page[2][i], tonumber(page[2][i + 1])
  local due = score - now > tonumber(ARGV[1]) and due_of(id)
  if due and due < score then
    redis.call('ZADD', KEYS[1], 'XX', due, id)
  end
end
return page[1] == '0' and '' or page[1]
