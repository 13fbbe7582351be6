-- Cancels tasks: those that have not started end now, and the runtimes of those that have started are notified.
--
-- KEYS  1 META of the shard
-- ARGV  1 ms to keep their records, 2 their outcome, then for each task: id, its tenant, or '' for any
-- Reply for each the state in which it was found, 'missing' if the tenant has no such task, or 'moving' if it is on its way to
--       another shard (export.lua): it is to be asked again. If the records are large,
--       the reply ends early: the caller asks for the other tasks in its next call.
--
-- Safe to repeat: canceled tasks are settled. For a started task this is stored, so whatever becomes of its runtime and
-- of the message, it does not run again.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/ending.lua
-- @include lib/locate.lua
-- @include lib/undelay.lua
-- @include lib/withdraw.lua

local BYTES = 500000 -- of records in a call, by about one record; they are read and written again
local SETTLED = { [DONE] = 'finished', [DEAD_STATE] = 'failed', [CANCELED_STATE] = 'canceled' }
local ttl_ms, outcome = tonumber(ARGV[1]), ARGV[2]

local ids, bytes = {}, 0
for i = 3, #ARGV, 2 do
  if bytes >= BYTES then break end
  ids[#ids + 1] = ARGV[i]
  bytes = bytes + call('STRLEN', TASK .. ARGV[i])
end
local records = read_records(ids)
for i, record in ipairs(records) do records[i] = record and is_owned_by(ARGV[2 + 2 * i], record) and record end
local states, runtimes, lanes_of = locate(ids, records)
for i, id in ipairs(shard.epoch > 0 and ids or {}) do
  if records[i] and call('SISMEMBER', LEAVING .. tenant_of(records[i]), id) == 1 then states[i] = 'moving' end
end

-- The tasks that end now, and by tenant where they stand.
local waiting, names, places, deferred = {}, {}, {}, {}
do
  local taken = {}
  for i, id in ipairs(ids) do
    local state = states[i]
    if not taken[id] and (state == 'queued' or state == 'scheduled' or state == 'deferred') then
      taken[id] = true
      local name = tenant_of(records[i])
      if not places[name] then
        names[#names + 1], places[name] = name, { suspects = {}, scheduled = {}, deferred = deferred, lanes = {} }
      end
      local lane, in_lanes = state == 'queued' and lanes_of[i], places[name].lanes
      if lane then in_lanes[lane] = in_lanes[lane] or {} end
      local place = lane and in_lanes[lane] or places[name][state == 'queued' and 'suspects' or state]
      place[#place + 1], waiting[#waiting + 1] = id, i
    end
  end
end

local function cancel_waiting()
  local ending = {}
  for j, i in ipairs(waiting) do ending[j] = ids[i] end
  load_watchers(ending)
  load_counts(names)
  load_tenants(names)
  -- Kept for a while at least: if the reply is lost, the repeat finds the records.
  local cancellation = pack_cancel(math.max(FETCH, ttl_ms), outcome)
  for _, i in ipairs(waiting) do
    local record, state = records[i], states[i]
    local name = tenant_of(record)
    add(name, state == 'queued' and record:byte(3) or state == 'scheduled' and WAITING or DEFERRED, -1)
    cancel_task(ids[i], name, record, cancellation)
  end
  for _, name in ipairs(names) do
    for lane, queued in pairs(places[name].lanes) do count_withdrawn(name, #queued, lane) end
    count_suspects_withdrawn(name, #places[name].suspects)
  end
  run_ends_hook()
  update_ring(arriving)
end

-- Notifies the runtimes of tasks that have started, each of which is complete in itself.
local function notify_started()
  for i, state in ipairs(states) do
    if state == 'started' then
      call('HSET', CANCELS .. runtimes[i], ids[i], pack_cancel(ttl_ms, outcome))
      call('PUBLISH', INBOX .. runtimes[i], 'c' .. ids[i])
    end
  end
end

local reply = {}
for i, state in ipairs(states) do reply[i] = state == 'settled' and SETTLED[records[i]:sub(1, 1)] or state end
if #waiting == 0 then
  notify_started()
  return reply
end
cancel_waiting()

begin_writing()
write_ends()
for _, name in ipairs(names) do
  local place = places[name]
  for lane, queued in pairs(place.lanes) do write_all('ZREM', mailbox(name, lane), queued) end
  if #place.suspects > 0 then remove_suspects(name, place.suspects) end
  if #place.scheduled > 0 then remove_delayed(name, place.scheduled, 0) end
end
write_all('HDEL', HELD, deferred)
notify_started()
save_counts()
save_shard()
return reply
