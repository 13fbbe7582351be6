-- Deletes tasks and dead letters of a tenant that have arrived on its new shard. Those that wait for their outcomes ask there.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 and on: ids
-- Reply how many of its tasks still wait here
--
-- Bounded: its caller gives it what export.lua has returned.
-- Safe to repeat: what is deleted is not there.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/ending.lua
-- @include lib/locate.lua
-- @include lib/undelay.lua
-- @include lib/withdraw.lua

local name, ids = ARGV[1], {}
for i = 2, #ARGV do ids[i - 1] = ARGV[i] end
local packed = call('HGET', POLICY, name)
local policy = packed and cmsgpack.unpack(packed) or {}
local records = read_records(ids)
for i, record in ipairs(records) do records[i] = record and is_owned_by(name, record) and record end
local states, _, lanes_of = locate(ids, records)
load_counts({ name })
load_tenants({ name })
load_watchers(ids)

local queued, suspects, scheduled, gone, letters = {}, {}, {}, {}, {}
for i, id in ipairs(ids) do
  local lane, record = lanes_of[i], records[i]
  if records[i] and record:sub(1, 1) == DEAD_STATE then
    gone[#gone + 1], letters[#letters + 1] = id, id
    remove_letter(id, record)
    add(name, FAILED, -1)
  elseif policy.moving == 'gone' and (states[i] == 'queued' or states[i] == 'scheduled') then
    gone[#gone + 1] = id
    add(name, states[i] == 'queued' and record:byte(3) or WAITING, -1)
    local place = scheduled
    if lane then
      queued[lane] = queued[lane] or {}
      place = queued[lane]
    elseif states[i] == 'queued' then
      place = suspects
    end
    place[#place + 1] = id
  end
end
for lane, found in pairs(queued) do count_withdrawn(name, #found, lane) end
count_suspects_withdrawn(name, #suspects)
update_ring({})

-- Deletes a task and its key, and tells those that wait for its outcome to ask again.
local function delete(id)
  local key = keyed[id] and select(2, unpack_key(keyed[id]))
  if key and call('GET', KEY .. key) == id then call('DEL', KEY .. key) end
  call('HDEL', KEYED, id)
  if watched[id] then notify_watchers(id, '', watched[id]) end
  call('DEL', TASK .. id)
end

begin_writing()
for lane, found in pairs(queued) do write_all('ZREM', mailbox(name, lane), found) end
if #suspects > 0 then remove_suspects(name, suspects) end
if #scheduled > 0 then remove_delayed(name, scheduled, 0) end
for _, id in ipairs(gone) do delete(id) end
change_letters('ZREM', letters)
write_letter_indexes()
write_all('SREM', LEAVING .. name, ids)
save_counts()
save_shard()
return live(counts[name]) + counts[name][WAITING]
