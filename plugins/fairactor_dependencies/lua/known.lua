-- Tells which of some tasks exist. Somebody is about to wait for these, so their ends are kept until then, even if their
-- records are not.
--
-- KEYS  1 META of the shard
-- ARGV  1 '1' if tasks of another shard will wait for them, then for each task: id, its tenant, or '' for any
-- Reply for each task 1, or 0 if the tenant has no such task, or no longer; 2 if the task is about to move to the new shard of
--       its tenant; for the first ones only, if it would have to copy many bytes
--
-- Bounded: its caller asks for 500 tasks, and it copies about 1 MB of results.
-- Safe to repeat: it changes a mark.

-- @include lib/intact.lua
-- @include lib/plugins.lua
-- @include lib/owner.lua
-- @include own/outcome.lua
-- @include own/heads.lua

local FIELD, FIELD_SIZE, ASKED, ASKED_FAR, EARLY, FAR = '>HB', 3, 2, 4, 300000, 86400000 -- as in ends.lua
local BYTES, MOVES = 1048576, 2
local far = ARGV[1] == '1'
local ids, known, live, fields, bytes = {}, {}, {}, {}, 0
for i = 2, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end

local function has_gone(tenant)
  local policy = call('HGET', POLICY, tenant)
  return policy and cmsgpack.unpack(policy).moving == 'gone'
end

for i, record in ipairs(read_heads(ids)) do
  if bytes >= BYTES then break end
  local ours = record and is_owned_by(ARGV[2 * i + 1], record)
  known[i] = ours and 1 or 0
  if ours and record:sub(1, 1) == LIVE and has_gone(tenant_of(record)) then
    known[i] = MOVES
  elseif ours and record:sub(1, 1) == LIVE then
    live[#live + 1] = ids[i]
  elseif ours and call('PTTL', TASK .. ids[i]) < (far and FAR or EARLY) then
    local state, root = state_of(ids[i], record)
    local kept = pack_end(state, root, tenant_of(record), state == DONE and result_in(call('GET', TASK .. ids[i])))
    bytes = bytes + #kept
    last[#last + 1] = function() call('SET', OWN .. 'end:' .. ids[i], kept, 'PX', far and FAR or EARLY) end
  end
end
for i, field in ipairs(read_all('HMGET', OWN .. 'of:t', live)) do
  local count, flags = 0, 0
  if field then count, flags = struct.unpack(FIELD, field) end
  local wanted = far and ASKED_FAR or ASKED
  if flags < wanted then
    fields[#fields + 1] = live[i]
    fields[#fields + 1] = struct.pack(FIELD, count, flags % 2 + wanted) .. (field and field:sub(FIELD_SIZE + 1) or '')
  end
end
if #fields + #last == 0 then return known end

depend_on(SELF)
begin_writing()
write_these(later)
if #fields > 0 then write_all('HSET', OWN .. 'of:t', fields) end
write_these(last)
end_writing()
return known
