-- Begins the repair of a shard that a script left half written, as if that script had run, or had not; or goes on with it.
--
-- KEYS  1 META of the shard
-- ARGV  1 'torn': only if a script did fail halfway, 'all': from the beginning, whatever there is, or 'report'; 2 a name of
--       the client; 3 and on: version, shards, step, what is shared and the layout, as in the reply of open.lua, if they are known
-- Reply the script of the repair to call next: 'mend', 'mend_places' or 'mend_rings'; 'done': this call has completed it;
--       'busy': another client is at it; '': there is nothing to do. To 'report': what the last repair has done, {'r' and
--       what was repaired, 's' and what was set aside, or 'c', a task, a zero byte and its cancellation as CANCELS keeps it:
--       it has to be canceled again, since it is no longer claimed}
--
-- Safe to repeat: it goes on from what is stored (see lib/mend_steps.lua). This script removes damage, mend_places.lua finds
-- out where tasks stand, and mend_rings.lua counts them and decides who is served. No other script walks over all keys of
-- the shard.

-- @include lib/mend_steps.lua
-- @include lib/damage_meta.lua

if ARGV[1] == 'report' then return redis.call('LRANGE', MENDED, 0, -1) end
local goes_on, is_same = read_state()
if ARGV[1] == 'torn' then
  if redis.pcall('HGET', META, 'torn') ~= '1' then return '' end
  if goes_on and is_busy(ARGV[2]) then return 'busy' end
  if goes_on and state.script ~= 'mend' then return state.script end
else
  goes_on, is_same = false, false
end
local begins = not goes_on
if begins then
  state = { script = 'mend', phase = '1', at = '0', cursor = '0', run = process_of_server(), ['lines of r'] = '0',
    ['lines of s'] = '0', began = is_same and state.began or string.format('%d', now_ms()) }
  repair_meta(3)
  forget_repair(is_same)
end
state.helper = ARGV[2]

-- @include lib/base.lua
-- @include lib/damage.lua
-- @include lib/plugins.lua
-- @include lib/counts.lua
-- @include lib/cost.lua

local FOREIGN = 100 -- about how many keys of the server a step of the scan passes over

-- Passes over some keys of the server.
local function check_keys()
  local part = call('SCAN', state.cursor, 'MATCH', META .. ':*', 'COUNT', FOREIGN)
  spend(8)
  for _, key in ipairs(part[2]) do check_key(key) end
  state.cursor = part[1]
  if part[1] == '0' then next_phase() end
end

if begins then
  state.stamp = integer(shard.stamp)
  call('HSET', META, 'stamp', state.stamp)
  save_clock()
end
return run_phases(damage_phases({ part = check_keys }), 'mend_places')
