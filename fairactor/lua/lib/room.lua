-- How many more tasks a limited mailbox takes. Queued, scheduled and deferred tasks count, and what others reserved;
-- running ones do not.

-- @include lib/counts.lua

local RESERVATION = 60000 -- ms for which a reservation lasts after its last batch, at least

local rooms = {} -- tenant -> how many more tasks it takes

-- Returns what others have reserved in the mailbox of a tenant.
local function reserved_by_others(name, reservation)
  local sum, reservations = 0, call('HGETALL', RESERVED .. name)
  for i = 1, #reservations, 2 do
    local number, till = struct.unpack('>dd', reservations[i + 1])
    if reservations[i] ~= reservation and till > shard.ms then sum = sum + number end
  end
  return sum
end

local function room_in(name, limits, reservation)
  if not limits or limits.backlog == math.huge then return math.huge end
  if not rooms[name] then
    local c = counts[name]
    local queued = limits.queued + limits.suspects + c[WAITING] + c[DEFERRED]
    rooms[name] = limits.backlog - queued - reserved_by_others(name, reservation)
  end
  return rooms[name]
end

local function take_room(name, number)
  if rooms[name] then rooms[name] = rooms[name] - number end
end

-- Reserves room for some tasks, for some ms.
local function write_reservation(name, reservation, number, ms)
  if number > 0 then
    call('HSET', RESERVED .. name, reservation, struct.pack('>dd', number, shard.ms + ms))
    call('PEXPIRE', RESERVED .. name, integer(math.max(ms, call('PTTL', RESERVED .. name))))
  else
    call('HDEL', RESERVED .. name, reservation)
  end
end

-- Reduces a reservation by the tasks that came under it.
local function use_reservation(reservation, names)
  local used = {}
  for _, name in ipairs(names) do used[name] = (used[name] or 0) + 1 end
  for name, number in pairs(used) do
    local packed = call('HGET', RESERVED .. name, reservation)
    if packed then
      local many, till = struct.unpack('>dd', packed)
      write_reservation(name, reservation, many - number, math.max(RESERVATION, till - shard.ms))
    end
  end
end
