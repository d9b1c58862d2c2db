-- KEYS: each recipient's triplets, one for each of the client's names; then, if it is to be known, the sender's.

local values = read(KEYS)
for member = 1, members do
  local start = (member - 1) * names + 1
  look_all(values, start, names, member)
  for place = start, start + names - 1 do
    put(KEYS[place], delivered(), pass_ttl)
  end
end
local start = members * names + 1
if start <= #KEYS then
  look_all(values, start, #KEYS - start + 1, members + 1)
  for place = start, #KEYS do
    put(KEYS[place], delivered(), pass_ttl)
  end
end
return now
