#!lua flags=allow-oom
-- Take out of a line who stands first and is no longer to be handled, and make the next one due. Repeating the call is
-- harmless. What settles, acknowledges or deletes an entry need not know of the line: this looks what became of it.
-- KEYS[1] line (zset, see line_up.lua)  KEYS[2] what the names of the retries begin with: `:<stream>` follows
-- ARGV[1] group  ARGV[2] seconds the line is kept
-- Returns 1 if one was made due, else 0.
local MOST = 1000 -- in one call; as many again when somebody else calls

local function stands(stream, id, begun)
  if not stream then
    return false -- written by hand
  end
  local pending = checked(redis.pcall('XPENDING', stream, ARGV[1], id, id, 1))
  if pending.err or #pending == 0 then
    return false
  end
  -- Deleted by hand it will never begin; once it has begun, its worker has it and will settle it.
  return begun or #redis.call('XRANGE', stream, id, id) > 0
end

local removed, answer = false, 0
for _ = 1, MOST do
  local member, score = unpack(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES'))
  if not member then
    return 0
  end
  local ms, seq, stream = string.match(member, '^0*(%d+)-0*(%d+)|(.*)$')
  local id, begun = ms and ms .. '-' .. seq, score == '0'
  if stands(stream, id, begun) then
    if removed and not begun then
      local now = redis.call('TIME')
      redis.pcall('ZADD', KEYS[2] .. ':' .. stream, now[1] * 1000 + math.floor(now[2] / 1000), id)
      answer = 1
    end
    break
  end
  redis.call('ZREM', KEYS[1], member)
  removed = true
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return answer
