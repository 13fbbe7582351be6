-- Runtimes that serve certain tenants only. Such a runtime is the home of those that are assigned to it.
--
-- Each home has a virtual time of its own: its tenants may be served faster or slower than all others, and one that
-- arrives among them must neither wait for what those have had more, nor gain by what they have had less. It is never
-- behind that of the shard, for runtimes without a home serve all.

-- @include lib/base.lua

local homes = {} -- runtime -> its virtual time
do
  local flat = call('HGETALL', HOMES)
  for i = 1, #flat, 2 do homes[flat[i]] = tonumber(flat[i + 1]) end
end
local moving, its_tenants -- a runtime whose tenants change with this script, and those that it will have

-- The virtual time of a tenant's home, the latest where it has several; nil without one.
local function home_time(name)
  local latest
  for runtime, time in pairs(homes) do
    local is_home
    if runtime == moving then is_home = its_tenants[name] else is_home = call('SISMEMBER', ASSIGNED .. runtime, name) == 1 end
    if is_home then latest = math.max(latest or shard.virtual, time) end
  end
  return latest
end

-- Wakes one runtime that would take more work of any tenant; it wakes the next if it leaves any. A runtime that was
-- killed hears nothing (PUBLISH counts who did), so the next one is tried.
local function wake_idle()
  for _ = 1, 8 do
    local runtime = call('SPOP', IDLE)
    if not runtime or call('PUBLISH', INBOX .. runtime, 'w') > 0 then return end
  end
end

-- Wakes all that serve certain tenants only, and some of these.
local function wake_homes(names)
  for _, runtime in ipairs(next(homes) and call('SMEMBERS', IDLE_HOMES) or {}) do
    for _, name in ipairs(names) do
      if call('SISMEMBER', ASSIGNED .. runtime, name) == 1 or call('SISMEMBER', STEAL .. runtime, name) == 1 then
        call('SREM', IDLE_HOMES, runtime)
        call('PUBLISH', INBOX .. runtime, 'w')
        break
      end
    end
  end
end

-- Wakes all that serve certain tenants only, and one of the others: a runtime is no more, or serves others now, that may
-- have been the only one which knew of work, or until when to sleep.
local function wake_all()
  wake_idle()
  for _, runtime in ipairs(next(homes) and call('SMEMBERS', IDLE_HOMES) or {}) do
    call('SREM', IDLE_HOMES, runtime)
    call('PUBLISH', INBOX .. runtime, 'w')
  end
end

-- Whether a runtime serves tenants of all kinds, first or last.
local function serves_all(runtime)
  return not homes[runtime] or call('SISMEMBER', STEAL .. runtime, '') == 1
end
