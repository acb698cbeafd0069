#!lua flags=allow-oom
-- Make a group that starts with the stream's first entry, and the stream if need be. Repeating the call is harmless.
-- allow-oom: a worker that starts must be able to drain a full Redis; plain XGROUP CREATE is refused there.
-- KEYS[1] stream  ARGV[1] group
-- Returns 1.
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
  return made
end
return 1
