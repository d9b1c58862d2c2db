-- What is known of one triplet or one sender: version 1, first_seen, passed (0: never), and it ends with its key.
-- The twin of policy/src/greylist.rs: `judge`, `better` and `delivered` are there in prose and in full.

local delay, kept, pass_ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local single_use = ARGV[4] == '1'
-- Of the client, and the recipients.
local names, members = tonumber(ARGV[5]), tonumber(ARGV[6])
-- Then there is also what was found under older store keys: for each recipient, and last for the sender.
local has_older = ARGV[7] == '1'

-- The better one comes first.
local AGAIN, RIPE, EARLY, EXPIRED, NEW, KNOWN, FORGOTTEN = 0, 1, 2, 3, 4, 5, 6

-- The best of the records that were looked at since `begin`.
local first_seen, passed, class, wait, raw
local is_lent

local function begin()
  first_seen, passed, class, wait, raw, is_lent = nil, 0, NEW, delay, false, false
end

local function look(value)
  if not value or #value ~= 9 then
    return
  end
  local version, first, last = struct.unpack('>I1I4I4', value)
  if version ~= 1 then
    return
  end
  local its_class, its_wait
  if last > 0 and not single_use then
    if now - last < pass_ttl then
      its_class, its_wait = AGAIN, 0
    else
      its_class, its_wait = EXPIRED, delay
    end
  elseif first > now then
    its_class, its_wait = NEW, delay
  else
    local age = now - first
    its_wait = delay - age
    if last > 0 and last <= now and age < LONGEST_DELAY and LEASE - (now - last) > 0 then
      is_lent = true
      its_wait = math.max(its_wait, LEASE - (now - last))
    end
    if its_wait > 0 then
      its_class = EARLY
    else
      its_class, its_wait = last > 0 and AGAIN or RIPE, 0
    end
  end
  local is_better = not first_seen
  if not is_better and its_class ~= class then
    is_better = its_class < class
  elseif not is_better and its_wait ~= wait then
    is_better = its_wait < wait
  elseif not is_better and first ~= first_seen then
    is_better = first < first_seen
  elseif not is_better then
    is_better = last > passed
  end
  if is_better then
    first_seen, passed, class, wait, raw = first, last, its_class, its_wait, value
  end
end

-- Looks at `count` values of this store key from `start` on, then at those that were found under older keys. A pass
-- that is lent under this key is not to be had a second time under an older one.
local function look_all(values, start, count, member)
  begin()
  for place = start, start + count - 1 do
    look(values[place])
  end
  if has_older and not is_lent then
    local older = ARGV[7 + member]
    for place = 1, #older, 9 do
      look(string.sub(older, place, place + 8))
    end
  end
end

local function pack(first, last)
  return struct.pack('>I1I4I4', 1, first, last)
end

-- The record after a delivery, or after a pass.
local function delivered()
  return pack(first_seen and math.min(first_seen, now) or now, now)
end

