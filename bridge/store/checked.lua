-- Put before scripts that use it, behind their first line; see scripts.py.
-- The answer of redis.pcall, unless Redis refused the command for a reason that is not in its keys, such as a right that
-- is missing: then the script ends with that error. To go on would be to take "it may not be read" for "it is not there".
local function checked(answer)
  local err = type(answer) == 'table' and answer.err and tostring(answer.err) or ''
  for _, quiet in ipairs({'WRONGTYPE', 'NOGROUP', 'no such key', 'start ID'}) do
    if string.find(err, quiet, 1, true) then
      return answer
    end
  end
  if err ~= '' then
    error(answer)
  end
  return answer
end
