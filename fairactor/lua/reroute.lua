-- Moves tasks that wait to another queue. They keep their places.
--
-- KEYS  1 META of the shard
-- ARGV  1 queue, as JSON text without quotation marks, or '' for the default one, then for each task its id, and its tenant,
--       or '' for any
-- Reply for each 1 if it waits and is now in the queue, else 0; -1 if its route would be too long. If the records are
--       large, the reply ends early: the caller asks for the other tasks in its next call.
--
-- Bounded: its caller names 200 tasks; 500 kB of records by about one.
-- Safe to repeat: a task that is in the queue already stays as it is.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/locate.lua
-- @include lib/route.lua

local BYTES, LONGEST = 500000, 1800 -- of records, which are read and written again; of a route, as in route.py
local WAITS = { queued = true, scheduled = true, deferred = true }
local ids, bytes, reply = {}, 0, {}
for i = 2, #ARGV, 2 do
  if bytes >= BYTES then break end
  ids[#ids + 1] = ARGV[i]
  bytes = bytes + call('STRLEN', TASK .. ARGV[i])
end
local records = read_records(ids)
local seen = {}
for i, record in ipairs(records) do
  records[i] = not seen[ids[i]] and record and is_owned_by(ARGV[2 * i + 1], record) and record
  seen[ids[i]] = true
end
local states, _, lanes_of = locate(ids, records)

-- Returns the record with the queue in its route; nil if that cannot be read; then its route before.
local function rerouted(record)
  local body = select(7, struct.unpack(HEADER, record))
  local route = record:sub(body, body + 1) == '["' and text_from(record, body + 2)
  if not route then return nil end
  local fields = route_fields(route)
  for i = #fields + 1, 2 do fields[i] = '' end
  fields[2] = ARGV[1]
  while fields[#fields] == '' do fields[#fields] = nil end
  local changed = table.concat(fields, FIELD_SEPARATOR)
  if #changed > LONGEST then return false end
  return record:sub(1, body + 1) .. changed .. record:sub(body + 2 + #route), changed, route
end

local changes, names = {}, {}
for i, record in ipairs(records) do
  reply[i] = 0
  local waits = record and WAITS[states[i]]
    and (shard.epoch == 0 or call('SISMEMBER', LEAVING .. tenant_of(record), ids[i]) == 0)
  if waits then
    local changed, route, before = rerouted(record)
    reply[i] = changed == false and -1 or changed and 1 or 0
    if changed and route ~= before then
      if route:find(FIELD_SEPARATOR, 1, true) then use_routes() end
      names[#names + 1] = tenant_of(record)
      changes[#changes + 1] = { id = ids[i], name = tenant_of(record), record = changed, route = route, lane = lanes_of[i] }
    end
  end
end
if #changes == 0 then return reply end

load_counts(names)
load_tenants(names)
local new_records, withdrawn = {}, {} -- mailbox -> ids
for _, task in ipairs(changes) do
  local _, count, priority, _, stamp = struct.unpack(HEADER, task.record)
  new_records[#new_records + 1], new_records[#new_records + 2] = TASK .. task.id, task.record
  note_size(#task.record)
  local to = task.lane and lanes and lanes.of_route(task.route)
  if to and to ~= task.lane then
    local key = mailbox(task.name, task.lane)
    withdrawn[key] = withdrawn[key] or {}
    table.insert(withdrawn[key], task.id)
    count_withdrawn(task.name, 1, task.lane)
    enqueue(task.name, task.id, stamp, priority, count, task.record, to)
  end
end
update_ring(arriving)

begin_writing()
if shard.routed then call('HSET', META, 'lanes', '1', 'routed', '1') end
call_all('MSET', new_records)
write_queues()
for key, gone in pairs(withdrawn) do write_all('ZREM', key, gone) end
save_counts()
save_shard()
return reply
