#!lua flags=allow-oom
-- Removes old entries that every group has acknowledged although one before them is still held, one page of them.
-- KEYS     stream
-- ARGV     the id before which entries are old enough, where to go on: '-' or '(' and an id, then the groups that will read it, joined or not yet
-- returns  {removed, where to go on: '(' and an id, or '' at the end}
-- It stays below the last entry that each group was given: nothing that one has yet to read, and Redis knows their lag.
local MOST, LARGE = 200, 1048576 -- entries and bytes in a page, about: Redis serves nobody else for a millisecond

local function older(one, other)  -- of two entry ids; as numbers they would lose their last digits
  local a, b = string.match(one, '%d+'), string.match(other, '%d+')
  if a == b then
    a, b = string.match(one, '%d+$'), string.match(other, '%d+$')
  end
  return (#a < #b or #a == #b and a < b) and one or other
end

local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err and not string.find(tostring(groups.err), 'no such key', 1, true) then
  return groups
end
if groups.err or #groups == 0 then
  return {0, ''}
end
local bound, names = ARGV[1], {}
for n, fields in ipairs(groups) do
  for i = 1, #fields, 2 do
    if fields[i] == 'name' then
      names[n], names[fields[i + 1]] = fields[i + 1], true
    elseif fields[i] == 'last-delivered-id' then
      bound = older(bound, fields[i + 1])
    end
  end
end
for i = 3, #ARGV do
  if not names[ARGV[i]] then
    return {0, ''}
  end
end

if bound == '0-0' then
  return {0, ''}
end

local function pending(first, last)  -- a set of ids
  local found = {}
  for _, name in ipairs(names) do
    local from, rows = first, nil
    repeat
      rows = redis.call('XPENDING', KEYS[1], name, from, last, MOST)
      for _, row in ipairs(rows) do
        found[row[1]] = true
        from = '(' .. row[1]
      end
    until #rows < MOST
  end
  return found
end

local removed, looked, bytes, size, from = 0, 0, 0, 1, ARGV[2]
while looked < MOST and bytes < LARGE do
  local page = redis.call('XRANGE', KEYS[1], from, '(' .. bound, 'COUNT', size)
  if #page == 0 then
    return {removed, ''}
  end
  local held, ids = pending(page[1][1], page[#page][1]), {}
  for _, entry in ipairs(page) do
    ids[#ids + 1] = not held[entry[1]] and entry[1] or nil
    for _, value in ipairs(entry[2]) do
      bytes = bytes + #value
    end
  end
  if #ids > 0 then
    removed = removed + redis.call('XDEL', KEYS[1], unpack(ids))
  end
  looked, from, size = looked + #page, '(' .. page[#page][1], math.min(size * 2, 128)
end
return {removed, from}
