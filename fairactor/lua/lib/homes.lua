-- Runtimes that serve certain tenants only. Such a runtime is the home of those that are assigned to it.
--
-- Each home has a virtual time of its own: its tenants may be served faster or slower than all others, and one that
-- arrives among them must neither wait for what those have had more, nor gain by what they have had less. It is never
-- behind that of the shard, for runtimes without a home serve all.

-- @include lib/base.lua

local dedicated = {} -- runtime -> its virtual time
do
  local flat = call('HGETALL', HOMES)
  for i = 1, #flat, 2 do dedicated[flat[i]] = tonumber(flat[i + 1]) end
end
local reassigned, reassigned_tenants -- a runtime whose tenants change with this script, and those that it will have

-- The virtual time of a tenant's home, the latest where it has several; nil without one.
local function dedicated_time(name)
  local latest
  for runtime, time in pairs(dedicated) do
    local serves_it
    if runtime == reassigned then
      serves_it = reassigned_tenants[name]
    else
      serves_it = call('SISMEMBER', ASSIGNED .. runtime, name) == 1
    end
    if serves_it then latest = math.max(latest or shard.virtual, time) end
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
local function wake_dedicated(names)
  for _, runtime in ipairs(next(dedicated) and call('SMEMBERS', IDLE_HOMES) or {}) do
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
  for _, runtime in ipairs(next(dedicated) and call('SMEMBERS', IDLE_HOMES) or {}) do
    call('SREM', IDLE_HOMES, runtime)
    call('PUBLISH', INBOX .. runtime, 'w')
  end
end

-- Whether a runtime serves tenants of all kinds, first or last.
local function serves_all(runtime)
  return not dedicated[runtime] or call('SISMEMBER', STEAL .. runtime, '') == 1
end
