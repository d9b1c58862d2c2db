-- KEYS: the counter of one client. ARGV: the sender as it is counted, the seconds of a pass, and the counter under an
-- older store key (empty if there is none).
-- The twin of `Counter::delivered`: version 1, last counted, last delivered, expires, then the senders.

local packed, pass_ttl = ARGV[1], tonumber(ARGV[2])
local last_counted, last_delivered = 0, 0
local senders = ''

local function is_sound(value)
  return value and #value >= 13 and #value <= 13 + 4 * MAX_COUNTED_SENDERS and (#value - 13) % 4 == 0 and string.byte(value) == 1
end

local value = read(KEYS)[1]
if not is_sound(value) then
  value = ARGV[3]
end
if is_sound(value) then
  local _, counted, last, expires = struct.unpack('>I1I4I4I4', value)
  if expires > now then
    last_counted, last_delivered, senders = counted, last, string.sub(value, 14)
  end
end

if now - last_delivered >= pass_ttl then
  senders = ''
end
local is_counted = false
for place = 1, #senders, 4 do
  is_counted = is_counted or string.sub(senders, place, place + 3) == packed
end
local is_due = senders == '' or now - last_counted >= COUNT_INTERVAL
if is_due and not is_counted and #senders < 4 * MAX_COUNTED_SENDERS then
  senders = senders .. packed
  last_counted = now
end
-- A clock that was set back must not stop the counting until it is reached again.
last_counted = math.min(last_counted, now)
local expires = math.min(now + pass_ttl, 4294967295)
put(KEYS[1], struct.pack('>I1I4I4I4', 1, last_counted, now, expires) .. senders, pass_ttl)
return 0
