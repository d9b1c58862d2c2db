-- The server's own time judges, and it forgets by itself.

local now = tonumber(redis.call('TIME')[1])

-- The values of keys; false where there is none. One by one, and not by MGET: the server would use the memory of
-- the second key again for the value that is written next, and a value would be as large as a key.
local function read(keys)
  local values = {}
  for place = 1, #keys do
    values[place] = redis.call('GET', keys[place])
  end
  return values
end

-- Writes a value that is gone after so many seconds; with redis.pcall as `call`, returns the error of one that is
-- refused.
local function put(key, value, seconds, call)
  return (call or redis.call)('SET', key, value, 'EX', seconds)
end

