#!lua flags=no-writes
-- A page of a stream without the envelopes, which are nearly all of its bytes.
-- KEYS[1] stream  ARGV[1] XRANGE, or XREVRANGE for the newest first  [2] from  [3] to  [4] how many at most
-- Returns {id, bytes of the envelope or -1, {name, value, ...}} each.
local page = redis.call(ARGV[1], KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
local answer = {}
for n, entry in ipairs(page) do
  local size, kept = -1, {}
  for i = 1, #entry[2], 2 do
    local name, value = entry[2][i], entry[2][i + 1]
    if name == 'envelope' then
      size = #value
    else
      kept[#kept + 1] = name
      kept[#kept + 1] = value
    end
  end
  answer[n] = {entry[1], size, kept}
end
return answer
