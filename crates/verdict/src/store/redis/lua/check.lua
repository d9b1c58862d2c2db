-- KEYS: each recipient's triplets, one for each of the client's names, then the known sender's.
-- The last arguments: how many more records of this client may wait; and, if there was no room for some first tries
-- before, how many seconds ago each recipient's was (4 bytes each, all ones if there was none).
-- Returns the time; for each recipient its class, the seconds to wait, and the seconds it was held up (or -1); how
-- many records have begun to wait, and how many wait no more; then the place of each key that there was no room for,
-- with the age of its first try; and last, if something could not be written, why not.

local after_older = 8 + (has_older and members + 1 or 0)
local room, ages = tonumber(ARGV[after_older]), ARGV[after_older + 1]

local values = read(KEYS)
local found, is_ripe, is_known = {}, false, false
for member = 1, members do
  look_all(values, (member - 1) * names + 1, names, member)
  local is_dropped = false
  if not first_seen and ages ~= '' then
    local age = struct.unpack('>I4', ages, 4 * member - 3)
    if age < 4294967295 then
      is_dropped = true
      look(pack(math.max(now - age, 0), 0))
    end
  end
  found[member] = {first_seen, passed, class, wait, raw, is_dropped}
  is_ripe = is_ripe or class <= RIPE
end
if not single_use and not is_ripe then
  look_all(values, members * names + 1, #KEYS - members * names, members + 1)
  is_known = class == AGAIN
end

local begun, settled, no_room, is_begun, failure = 0, 0, {}, {}, nil

-- Whether a refused write spoils the answer is for the caller to say, but for what another server would take.
local function try_put(place, value, seconds)
  if failure then
    return
  end
  local result = put(KEYS[place], value, seconds, redis.pcall)
  if result.err then
    if string.find(result.err, 'READONLY', 1, true) then
      put(KEYS[place], value, seconds)
    end
    failure = result.err
  end
end

local function leave_out(place, first)
  no_room[#no_room + 1] = place
  no_room[#no_room + 1] = now - first
end

local function put_waiting(place, value, seconds, first)
  if values[place] or is_begun[KEYS[place]] then
    try_put(place, value, seconds)
  elseif begun < room then
    begun = begun + 1
    is_begun[KEYS[place]] = true
    try_put(place, value, seconds)
  else
    leave_out(place, first)
  end
end

local answer = {now}
for member = 1, members do
  local is_dropped
  first_seen, passed, class, wait, raw, is_dropped = unpack(found[member], 1, 6)
  local first_place, last_place = (member - 1) * names + 1, member * names
  local value, seconds
  local waits, is_lease, is_copy = false, false, false
  local held = -1
  if is_dropped and not is_known and class == RIPE then
    -- It may be another's time that it passes by; its own delivery is what is remembered.
    class, wait, first_seen = FORGOTTEN, 0, nil
  elseif is_dropped and not is_known and not is_ripe then
    -- Or this is its first try.
    for place = first_place, last_place do
      leave_out(place, now)
    end
    first_seen = nil
  elseif is_known then
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
    value, seconds, waits = pack(now, 0), kept + 1, true
  end
  local begins = now
  if value and not waits and not is_lease and first_seen and passed == 0 then
    settled = settled + names
  end
  if not value and first_seen and (names > 1 or has_older) then
    -- The client may go by a name that it was not known under when it first came: the wait goes on.
    value, is_copy, waits, begins = raw, true, passed == 0, first_seen
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
    for place = first_place, last_place do
      if is_lease and values[place] == raw then
        redis.call('SET', KEYS[place], value, 'KEEPTTL')
      elseif is_lease then
        put(KEYS[place], value, seconds)
      elseif is_copy and values[place] == raw then
        -- It is there.
      elseif waits then
        put_waiting(place, value, seconds, begins)
      else
        try_put(place, value, seconds)
      end
    end
  end
  answer[#answer + 1] = class
  answer[#answer + 1] = wait
  answer[#answer + 1] = held
end
answer[#answer + 1] = begun
answer[#answer + 1] = settled
for _, number in ipairs(no_room) do
  answer[#answer + 1] = number
end
answer[#answer + 1] = failure
return answer
