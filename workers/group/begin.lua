#!lua flags=allow-oom
-- Subscribe a group, and note where it begins in streams that are there already. In one step, so that whoever sees the
-- subscription knows: a stream without a note came later. Who was first has decided; repeating the call is harmless.
-- allow-oom: a worker that starts must be able to drain a full Redis.
-- KEYS[1] subscriptions (set)  KEYS[2] starts of the group (hash: stream -> id after which it reads, see group.lua)
-- ARGV[1] how many members of the subscriptions follow; then stream and id, ...
-- Returns 1.
local last = 1 + ARGV[1]
for i = last + 1, #ARGV, 2 do
  if not redis.call('HGET', KEYS[2], ARGV[i]) then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('SADD', KEYS[1], unpack(ARGV, 2, last))
return 1
