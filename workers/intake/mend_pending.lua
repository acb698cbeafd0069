#!lua flags=allow-oom
-- After Redis' clock went back: entries that were delivered or renewed before that seem never to be idle, and nobody
-- could take them over; nor do consumers, so that the dead count as at work. From now on both are idle; who is alive
-- renews that. One page; repeating it is harmless.
-- KEYS[1] stream  ARGV[1] group  ARGV[2] where to go on: '-' or '(' and an id  ARGV[3] how many to look at
-- Returns where to go on, '' at the end.
local consumers = ARGV[2] == '-' and checked(redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) or {}
for _, fields in ipairs(consumers) do
  local consumer = {}
  for i = 1, #fields, 2 do
    consumer[fields[i]] = fields[i + 1]
  end
  if consumer['idle'] == 0 then
    -- It asks for what it was given after the last id there can be: nothing, but it has been seen now.
    redis.pcall('XREADGROUP', 'GROUP', ARGV[1], consumer['name'], 'COUNT', 1, 'STREAMS', KEYS[1],
                '18446744073709551615-18446744073709551615')
  end
end
local rows = checked(redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3]))
if rows.err then
  return ''
end
for _, row in ipairs(rows) do
  local id, consumer, idle = row[1], row[2], row[3]
  if idle == 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], consumer, 0, id, 'IDLE', 0, 'JUSTID')
  end
end
return #rows == tonumber(ARGV[3]) and '(' .. rows[#rows][1] or ''
