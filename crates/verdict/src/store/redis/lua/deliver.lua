-- KEYS: each recipient's triplets, one for each of the client's names; then, if it is to be known, the sender's.
-- Returns how many records wait no more.

local values = read(KEYS)
local settled, is_done = 0, {}
for member = 1, members do
  local start = (member - 1) * names + 1
  look_all(values, start, names, member)
  -- A recipient may be named twice.
  if first_seen and passed == 0 and not is_done[KEYS[start]] then
    settled = settled + names
    is_done[KEYS[start]] = true
  end
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
return settled
