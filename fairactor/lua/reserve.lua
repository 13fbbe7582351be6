-- Reserves room in mailboxes for tasks that will be sent in several batches, so that all fit or none is sent.
--
-- KEYS  1 META of the shard
-- ARGV  1 name of the reservation, 2 ms for which it lasts, then for each tenant: its name, how many tasks (0 frees the
--       rest), the ids chosen by the sender, packed: existing ones take no room
-- Reply {the first tenant whose mailbox is too full: then nothing is reserved; or '', 1 if tenants have policies: if none
--       has, none has a limit of its mailbox, [tenant that has one, its tasks for which room is reserved now] ...}
--
-- Safe to repeat: it replaces the reservation of that name. The caller bounds the number of tenants and of ids; a tenant
-- without a limit costs a look at its policy.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/room.lua

local reservation, lasts, names, wanted, ids = ARGV[1], tonumber(ARGV[2]), {}, {}, {}
local given = {}
for i = 3, has_policies and #ARGV or 0, 3 do
  given[#given + 1] = ARGV[i]
  wanted[ARGV[i]], ids[ARGV[i]] = tonumber(ARGV[i + 1]), ARGV[i + 2]
end
for i, policy in ipairs(read_all('HMGET', POLICY, given)) do
  if defaults.backlog or policy and policy:find('backlog', 1, true) then names[#names + 1] = given[i] end
end
load_counts(names)
load_tenants(names)
local reply = { '', has_policies and 1 or 0 }
for _, name in ipairs(names) do
  local room = room_in(name, tenants[name][LIMITS], reservation)
  if room < math.huge then
    local chosen = {}
    for i, id in ipairs(cmsgpack.unpack(ids[name])) do chosen[i] = TASK .. id end
    local number = math.max(0, wanted[name] - call_all('EXISTS', chosen))
    if number > 0 and number > room then return { name, 1 } end
    reply[#reply + 1], reply[#reply + 2] = name, number
  end
end

begin_writing()
for i = 3, #reply, 2 do write_reservation(reply[i], reservation, reply[i + 1], lasts) end
end_writing()
return reply
