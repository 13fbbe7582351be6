-- Reserves room in mailboxes for tasks that will be sent in several batches, so that all fit or none is sent.
--
-- KEYS  1 META of the shard
-- ARGV  1 name of the reservation, then for each tenant: its name, how many tasks (0 frees the rest),
--       the ids chosen by the sender, packed: existing ones take no room
-- Reply nothing, or the first tenant whose mailbox is too full: then nothing is reserved
--
-- Safe to repeat: it replaces the reservation of that name.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/room.lua

local reservation, names, wanted = ARGV[1], {}, {}
for i = 2, #ARGV, 3 do
  names[#names + 1] = ARGV[i]
  wanted[ARGV[i]] = tonumber(ARGV[i + 1])
end
load_counts(names)
load_tenants(names)
local limited = {}
for i, name in ipairs(names) do
  local room = room_in(name, tenants[name][LIMITS], reservation)
  if room < math.huge then
    local records = {}
    for n, id in ipairs(cmsgpack.unpack(ARGV[1 + 3 * i])) do records[n] = TASK .. id end
    wanted[name] = wanted[name] - call_all('EXISTS', records)
  end
  if wanted[name] > 0 and wanted[name] > room then return name end
  if room < math.huge then limited[#limited + 1] = name end
end

begin_writing()
for _, name in ipairs(limited) do write_reservation(name, reservation, wanted[name]) end
end_writing()
return false
