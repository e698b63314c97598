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
include { json } from '../subworkflows/values'
include { within } from './configuration'

workflow STA {
    take:
    request // every parameter, as JSON
    given // the parameter files and the sample sheet
    project // the directory that relative paths start from
    needs // as of needs_of

    main:
    RECIPE(request, given)
    sources = RECIPE.out.map { document -> json(document).datasets }
    tables = sources.map { rows -> rows.collect { row -> row.tilt_series }.unique() }
    TILT_SERIES_FILES(tables, project, tables.map { names -> existing(names) })
    tilt_series = TILT_SERIES_FILES.out.map { document -> json(document) }
    STACK_FILES(tilt_series.map { names -> existing(names).collect { found -> found.toString() } }, project, tilt_series.map { names -> existing(names) })
    inputs = tilt_series.combine(STACK_FILES.out).map { row -> [existing(row[0..-2]), existing(json(row[-1]))] } // tilt series, stacks

    PLAN(
        RECIPE.out,
        sources.map { rows -> [rows.collectMany { one -> [one.particles, one.tilt_series, one.reference, one.motion, one.mask] }.findAll()] }
            .combine(inputs)
            .map { names, series, stacks -> existing(names) + series + stacks },
    )
    plans = PLAN.out.flatMap { document -> json(document).datasets }
        .map { plan -> [plan.subMap(['id', 'project', 'binds']) + [label: plan.project ? "${plan.id}: ".toString() : ''], within(plan, needs)] }

    IMPORT(
        plans.combine(inputs).map { meta, plan, series, stacks ->
            def source = plan.subMap(['launch_dir', 'particles', 'tilt_series', 'motion']) + [symmetry: plan.recipe.refine3D.sym_name]
            [meta, source, existing([plan.particles, plan.tilt_series, plan.motion].findAll()) + series + stacks]
        }
    )
    LADDER(plans.join(IMPORT.out.job).map { meta, plan, job, particles -> [meta, begin(plan, job, particles)] }, needs)

    done = IMPORT.out.job.map { meta, job, _particles -> [meta, job] }.mix(LADDER.out.jobs)
    if (needs.ctf_refine || needs.polish) {
        POLISHING(LADDER.out.states.filter { _meta, state -> state.plan.polishing }, needs)
        done = done.mix(POLISHING.out)
    }

    jobs = in_order(done)
    pictures = jobs.map { rows -> rows.collectMany { id, job -> shown(job).collect { map -> [id, "${job.parent.name}/${job.name}/${map.name}".toString(), map] } } }
    RESULTS(
        PLAN.out,
        jobs.map { rows -> rows.collect { id, _job -> id } },
        jobs.map { rows -> rows.collect { _id, job -> job / 'job.json' } },
        pictures.map { rows -> rows.collect { id, name, _map -> [id, name] } },
        pictures.map { rows -> rows.collect { _id, _name, map -> map } },
        workflow.nextflow.version.toString(),
    )

    emit:
    plan = PLAN.out
    jobs = done // [meta, job] of every job that is complete
}

// What a data set begins with: see states.nf.
def begin(plan, job, particles) {
    def motion = plan.motion ? "Import/${job.name}/motion.star".toString() : ''
    def series = [tables: [tomograms: "Import/${job.name}/tomograms.star".toString(), motion: motion], imported: job, ctf_refine: [], polish: []]
    return [plan: plan, series: series, particles: particles, mask: plan.mask ? file(plan.mask) : [], map: plan.reference ? file(plan.reference) : []]
}

// One list of [data set, job], always in the same order, so that a resumed run finds its results in the cache.
def in_order(jobs) {
    return jobs.map { meta, job -> [meta.id, job] }.toSortedList { one, other -> key(one) <=> key(other) }
}

def key(row) {
    def (id, job) = row
    return "${id} ${job.parent.name} ${job.name}"
}

// The maps of a job that the report shows: results, and classes.
def shown(job) {
    if (job.parent.name == 'PostProcess' && !job.name.endsWith('_start')) {
        return [job / 'postprocess.mrc'].findAll { map -> map.exists() } // none where a step of polishing led to no map
    }
    if (job.parent.name == 'Class3D' && !job.name.endsWith('_template')) {
        return job.listFiles().findAll { map -> map.name ==~ /run_class\d+\.mrc/ }.sort { map -> map.name }
    }
    return []
}

// With what links lead to, so that it is bound into containers, too. Names are no patterns, whatever is in them.
def existing(names) {
    return names.collect { name -> file(name, glob: false) }.findAll { found -> found.exists() }.collectMany { found -> [found, found.toRealPath()] }.unique()
}
