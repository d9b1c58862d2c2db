-- KEYS: each recipient's triplets, one for each of the client's names, then the known sender's.
-- Returns the time, and for each recipient its class, the seconds to wait, and the seconds it was held up (or -1).

local values = read(KEYS)
local found, is_ripe, is_known = {}, false, false
for member = 1, members do
  look_all(values, (member - 1) * names + 1, names, member)
  found[member] = {first_seen, passed, class, wait, raw}
  is_ripe = is_ripe or class <= RIPE
end
if not single_use and not is_ripe then
  look_all(values, members * names + 1, #KEYS - members * names, members + 1)
  is_known = class == AGAIN
end

local answer = {now}
for member = 1, members do
  first_seen, passed, class, wait, raw = unpack(found[member], 1, 5)
  local value, seconds
  local is_lease, is_copy = false, false
  local held = -1
  if is_known then
    class, wait = KNOWN, 0
  elseif is_ripe and class <= RIPE then
    if class == RIPE then
      held = now - first_seen
    end
    if single_use then
      value, seconds, is_lease = pack(first_seen, now), math.max(first_seen + kept + 1 - now, LEASE), true
    else
      value, seconds = delivered(), pass_ttl
    end
  elseif is_ripe then
    -- Another recipient's carries this one.
    class, wait = AGAIN, 0
    if not single_use then
      value, seconds = pack(now, now), pass_ttl
    end
  elseif class >= EXPIRED then
    value, seconds = pack(now, 0), kept + 1
  end
  if not value and first_seen and (names > 1 or has_older) then
    -- The client may go by a name that it was not known under when it first came: the wait goes on.
    value, is_copy = raw, true
    if passed > 0 and not single_use then
      seconds = passed + pass_ttl - now
    else
      seconds = first_seen + kept + 1 - now
    end
    if seconds < 1 then
      value = nil
    end
  end
  if value then
    for place = (member - 1) * names + 1, member * names do
      if is_lease and values[place] == raw then
        redis.call('SET', KEYS[place], value, 'KEEPTTL')
      elseif not is_copy or values[place] ~= raw then
        put(KEYS[place], value, seconds)
      end
    end
  end
  answer[#answer + 1] = class
  answer[#answer + 1] = wait
  answer[#answer + 1] = held
end
return answer
