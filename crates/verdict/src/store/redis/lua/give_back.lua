-- KEYS: the null sender's triplets, whose pass was not used. It is good for the next session.

local values = read(KEYS)
for place, value in ipairs(values) do
  if value and #value == 9 then
    local version, first, last = struct.unpack('>I1I4I4', value)
    if version == 1 and last > 0 then
      redis.call('SET', KEYS[place], struct.pack('>I1I4I4', 1, first, 0), 'KEEPTTL')
    end
  end
end
return now
