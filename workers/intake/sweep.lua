#!lua flags=allow-oom
-- Remove the consumers of a group whose workers are gone. Never one with pending entries, for those would go with it.
-- A live worker that had nothing to read for so long may lose its consumer too (Redis 7.0 counts only reads that brought
-- something): the next entry makes it anew.
-- KEYS[1] stream  ARGV[1] group  ARGV[2] the caller, which stays  ARGV[3] ms of idleness
-- Returns the names removed. `left` (see leave.lua) goes as soon as it is empty.
local removed = {}
local consumers = checked(redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1]))
if consumers.err then
  return removed
end
for _, fields in ipairs(consumers) do
  local consumer = {}
  for i = 1, #fields, 2 do
    consumer[fields[i]] = fields[i + 1]
  end
  local name = consumer['name']
  local idle = name == 'left' or consumer['idle'] > tonumber(ARGV[3])
  if consumer['pending'] == 0 and idle and name ~= ARGV[2] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name)
    removed[#removed + 1] = name
  end
end
return removed
