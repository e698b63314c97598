// The whole run: the parameters and the data are checked; each data set is imported, its particles extracted at the
// first binning, a first reference made and refined; then one level after the other; at bin 1 the tilt series are
// polished; at the end the results. Runs from existing results begin further down.
include { RECIPE } from '../modules/core/recipe'
include { REFERENCES as TILT_SERIES_FILES ; REFERENCES as STACK_FILES } from '../modules/core/references'
include { PLAN } from '../modules/core/plan'
include { IMPORT } from '../modules/core/import'
include { LADDER } from '../subworkflows/ladder'
include { POLISHING } from '../subworkflows/polishing'
include { RESULTS } from '../modules/core/results'
include { json } from '../subworkflows/json'

workflow STA {
    take:
    request // every parameter, as JSON
    given // the parameter files and the sample sheet
    project // the directory that relative paths start from
    most // as of most_steps

    main:
    RECIPE(request, given)
    sources = RECIPE.out.map { file -> json(file).datasets }
    tables = sources.map { rows -> rows.collect { row -> row.tilt_series }.unique() }
    TILT_SERIES_FILES(tables, project, tables.map { names -> existing(names) })
    tilt_series = TILT_SERIES_FILES.out.map { file -> file.readLines() }
    STACK_FILES(tilt_series.map { names -> existing(names).collect { file -> file.toString() } }, project, tilt_series.map { names -> existing(names) })
    stacks = STACK_FILES.out.map { file -> existing(file.readLines()) }

    inputs = sources.combine(tilt_series.map { names -> [existing(names)] }).combine(stacks.map { files -> [files] })
        .map { row -> existing(row[0..-3].collectMany { one -> [one.particles, one.tilt_series, one.reference, one.motion, one.mask] }.findAll()) + row[-2] + row[-1] }
    PLAN(RECIPE.out, inputs)
    plans = PLAN.out.flatMap { file -> json(file).datasets }
        .map { plan -> within(plan, most) }
        .map { plan -> [plan.subMap(['id', 'project', 'binds']), plan] }

    IMPORT(
        plans.combine(tilt_series.map { names -> [existing(names)] }).combine(stacks.map { files -> [files] }).map { meta, plan, series, images ->
            [meta, plan.subMap(['launch_dir', 'particles', 'tilt_series', 'motion']) + [symmetry: plan.recipe.refine3D.sym_name], existing([plan.particles, plan.tilt_series, plan.motion].findAll()) + series + images]
        }
    )
    datasets = plans.join(IMPORT.out.job)
        .map { meta, plan, job, particles -> [meta, plan, imported(job, plan), particles, plan.mask ? file(plan.mask) : [], plan.reference ? file(plan.reference) : []] }
        .branch { row ->
            refined: row[1].start == 'polish'
            oriented: row[1].oriented
            picks: true
        }
    LADDER(datasets.picks, datasets.oriented, datasets.refined, most)

    polishing_jobs = channel.empty()
    if (most.cycles > 0) {
        POLISHING(
            plans.join(IMPORT.out.job).join(LADDER.out.finals)
                .filter { row -> row[1].polishing }
                .map { meta, plan, job, _picks, particles, maps, mask, postprocess ->
                    [meta, plan.polishing, plan.levels[-1], imported(job, plan), particles, maps, mask, postprocess]
                },
            most.cycles,
        )
        polishing_jobs = POLISHING.out.jobs
    }

    done = IMPORT.out.job.map { meta, job, _particles -> [meta, job] }.mix(LADDER.out.jobs, polishing_jobs)
    jobs = in_order(done)
    pictures = jobs.map { rows -> rows.collectMany { id, job -> shown(job).collect { map -> [id, "${job.parent.name}/${job.name}/${map.name}".toString(), map] } } }
    RESULTS(
        PLAN.out,
        jobs.map { rows -> rows.collect { row -> row[0] } },
        jobs.map { rows -> rows.collect { row -> row[1] / 'job.json' } },
        pictures.map { rows -> rows.collect { row -> "${row[0]}:${row[1]}".toString() } },
        pictures.map { rows -> rows.collect { row -> row[2] } },
        workflow.nextflow.version.toString(),
    )

    emit:
    plan = PLAN.out
    jobs = done // [meta, job] of every job that is complete
}

// No data set may have more steps than are set up: they would be missing without a word.
def within(plan, most) {
    def rungs = plan.oriented ? plan.levels.size() : plan.levels.size() - 1
    if (rungs > most.rungs || (!plan.oriented && !most.first) || (plan.polishing ? plan.polishing.cycles : 0) > most.cycles) {
        error("${plan.id} needs more steps than are set up (${most}), a fault of the pipeline's: please report it, with the parameters.")
    }
    return plan
}

// Where a data set's tilt-series tables are, and the jobs that hold them: import, CTF refinement, polishing.
def imported(job, plan) {
    return [[tomograms: "Import/${job.name}/tomograms.star".toString(), motion: plan.motion ? "Import/${job.name}/motion.star".toString() : ''], job, [], []]
}

// One list of [data set, job], always in the same order, so that a resumed run finds its results in the cache.
def in_order(jobs) {
    return jobs.map { meta, job -> [meta.id, job] }.toSortedList { one, other -> key(one) <=> key(other) }
}

def key(row) {
    return "${row[0]} ${row[1].parent.name} ${row[1].name}"
}

// The maps of a job that the report shows: results, and classes.
def shown(job) {
    if (job.parent.name == 'PostProcess' && !job.name.endsWith('_start')) {
        return [job / 'postprocess.mrc'].findAll { file -> file.exists() } // none where a step of polishing led to no map
    }
    if (job.parent.name == 'Class3D' && !job.name.endsWith('_template')) {
        return job.listFiles().findAll { file -> file.name ==~ /run_class\d+\.mrc/ }.sort { file -> file.name }
    }
    return []
}

// With what links lead to, so that it is bound into containers, too.
def existing(names) {
    return names.collect { name -> file(name) }.findAll { path -> path.exists() }.collectMany { path -> [path, path.toRealPath()] }.unique()
}
