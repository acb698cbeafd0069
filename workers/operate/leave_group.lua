#!lua flags=allow-oom
-- Remove a group from a stream, and note how far it had come. Repeating the call is harmless.
-- KEYS[1] stream  KEYS[2] streams that the group has been in (hash: stream -> the last id it was given, '' while it is in)
-- ARGV[1] group
-- Returns 1 if it was there, else 0.
local groups = checked(redis.pcall('XINFO', 'GROUPS', KEYS[1]))
if groups.err then
  return 0
end
for _, fields in ipairs(groups) do
  local group = {}
  for i = 1, #fields, 2 do
    group[fields[i]] = fields[i + 1]
  end
  if group['name'] == ARGV[1] then
    redis.call('HSET', KEYS[2], KEYS[1], group['last-delivered-id'])
    return redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
  end
end
return 0
