#!lua flags=no-writes
-- Count the entries of a stream that follow an id, one page of them, without handing them out.
-- KEYS[1] stream  ARGV[1] '-' or '(' and the id  ARGV[2] how many at most
-- Returns {how many, where to go on: '(' and an id, or '' at the end of the stream}
local LARGE = 1048576 -- bytes of entries after which the page ends: Redis copies them, and serves nobody else meanwhile
local from, left, size, bytes = ARGV[1], tonumber(ARGV[2]), 1, 0
while left > 0 and bytes < LARGE do
  size = math.min(size, left)
  -- An error when nothing can follow, the last id being the greatest there is.
  local page = checked(redis.pcall('XRANGE', KEYS[1], from, '+', 'COUNT', size))
  left = left - #page
  if #page < size then
    return {ARGV[2] - left, ''}
  end
  for _, entry in ipairs(page) do
    for _, value in ipairs(entry[2]) do
      bytes = bytes + #value
    end
  end
  from, size = '(' .. page[size][1], size * 2
end
return {ARGV[2] - left, from}
