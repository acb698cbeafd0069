#!lua flags=allow-oom
-- After Redis' clock went back: entries that were delivered or renewed before that seem never to be idle, and nobody
-- could take them over. From now on they are; their workers, if alive, renew them. One page; repeating it is harmless.
-- KEYS[1] stream  ARGV[1] group  ARGV[2] where to go on: '-' or '(' and an id  ARGV[3] how many to look at
-- Returns where to go on, '' at the end.
local rows = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3])
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
